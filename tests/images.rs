//! Images in the store and on mounts, by the binary: in every shape that tools write them, equal to what tools extract,
//! as a user without privileges, hostile ones, and under a hail of kills.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test says what is wrong by panicking")]

mod common;

#[path = "images/chaos.rs"]
mod chaos;
#[path = "images/commands.rs"]
mod commands;
#[path = "images/differential.rs"]
mod differential;
#[path = "images/doctor.rs"]
mod doctor;
#[path = "images/document.rs"]
mod document;
#[path = "images/equal.rs"]
mod equal;
#[path = "images/export.rs"]
mod export;
#[path = "image/forge.rs"]
mod forge;
#[path = "images/hostile.rs"]
mod hostile;
#[path = "images/layers.rs"]
mod layers;
#[path = "images/looks.rs"]
mod looks;
#[path = "images/made.rs"]
mod made;
#[path = "images/power.rs"]
mod power;
#[path = "images/shapes.rs"]
mod shapes;
#[path = "images/users.rs"]
mod users;
