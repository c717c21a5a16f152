//! `lamel inspect`: everything about containers and images, in docker's words.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Result, bail};
use jiff::Timestamp;
use lamel_image::platform::Platform;
use lamel_isolate::oci::Spec;
use serde_json::{Value, json};

use super::record::Record;
use super::records::Containers;
use super::settings::{Port, Settings};
use super::state::{State, Status};
use crate::image::{self, StoreArgs};
use crate::launch::told;
use crate::output::print;
use crate::output::template::Template;

/// What docker says where there was no time yet.
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Show everything about containers and images, as a JSON array
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    store: StoreArgs,
    /// A template such as '{{json .Config.Env}}', filled in for each
    #[arg(short, long, value_name = "FORMAT")]
    format: Option<String>,
    /// Look among these alone
    #[arg(short, long = "type", value_name = "TYPE")]
    kind: Option<Kind>,
    /// Of an image for several platforms, the one for this [default: this host's]
    #[arg(long, value_name = "OS/ARCH[/VARIANT]")]
    platform: Option<Platform>,
    /// Also how much a container has written
    #[arg(short, long)]
    size: bool,
    /// Names or ids of containers or images
    #[arg(required = true, value_name = "NAME")]
    names: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kind {
    Container,
    Image,
}

/// Inspects.
pub(super) fn run(args: &Args) -> Result<()> {
    let mut found = Vec::new();
    let mut failed = Vec::new();
    for name in &args.names {
        match describe(args, name) {
            Ok(value) => found.push(value),
            Err(error) => failed.push(told(&error)),
        }
    }
    match args.format.as_deref() {
        None | Some("json") => print([serde_json::to_vec_pretty(&found)?])?,
        Some(text) => {
            let template = Template::parse(text)?;
            let lines = found.iter().map(|value| template.render(value)).collect::<Result<Vec<_>>>()?;
            print(lines.into_iter().map(String::into_bytes))?;
        }
    }
    if failed.is_empty() { Ok(()) } else { bail!(failed.join("; ")) }
}

/// A container of the name, else an image.
fn describe(args: &Args, name: &str) -> Result<Value> {
    if args.kind != Some(Kind::Image) {
        let root = args.store.path()?;
        // Where no container was ever made, none is looked for, and nothing is made.
        let containers = if root.join("containers").is_dir() { Some(Containers::open(&root)?) } else { None };
        match containers.map(|containers| containers.find(name)) {
            Some(Ok(record)) => return container(&record, args.size),
            Some(Err(error)) if args.kind.is_some() => return Err(error),
            None if args.kind.is_some() => bail!("No such container: {name}"),
            _ => {}
        }
    }
    image::inspect::describe(&args.store.open()?, name, args.platform.as_ref())
}

fn container(record: &Record, size: bool) -> Result<Value> {
    let (settings, state, spec) = (&record.settings, record.state()?, record.spec()?);
    let process = spec.process().as_ref();
    let args = process.and_then(|process| process.args().clone()).unwrap_or_default();
    let mounts: Vec<Value> = spec.mounts().iter().flatten().filter_map(|mount| self::mount(mount, settings)).collect();
    let own = |name: &str| {
        let is_mounted = spec.mounts().iter().flatten().any(|mount| mount.source().as_deref() == Some(Path::new(name)));
        if is_mounted { record.dir().join(name) } else { PathBuf::new() }
    };
    let mut value = json!({
        "Id": settings.id,
        "Created": settings.created,
        "Path": args.first(),
        "Args": args.get(1..).unwrap_or_default(),
        "State": self::state(&state),
        "Image": settings.image.as_ref().map(|used| used.config.to_string()).unwrap_or_default(),
        "ImageName": settings.image_name(),
        "Rootfs": settings.rootfs,
        "ResolvConfPath": own("resolv.conf"),
        "HostnamePath": own("hostname"),
        "HostsPath": own("hosts"),
        "LogPath": record.log(),
        "OCIConfigPath": record.dir().join("config.json"),
        "Name": format!("/{}", settings.name),
        "RestartCount": state.restarts,
        "Driver": "lamel",
        "AppArmorProfile": process.and_then(|process| process.apparmor_profile().clone()).unwrap_or_default(),
        "ProcessLabel": process.and_then(|process| process.selinux_label().clone()).unwrap_or_default(),
        "MountLabel": spec.linux().as_ref().and_then(|linux| linux.mount_label().clone()).unwrap_or_default(),
        "Platform": "linux",
        "Mounts": mounts,
        "GraphDriver": {
            "Name": "lamel",
            "Data": {
                "UpperDir": settings.image.as_ref().map(|_| record.upper()),
                "WorkDir": settings.image.as_ref().map(|_| record.work()),
                "MergedDir": record.root(),
            },
        },
        "HostConfig": host_config(settings, &spec),
        "Config": config(settings, &spec),
        "NetworkSettings": network(&state),
    });
    if size {
        value["SizeRw"] = super::ps::written(&record.upper()).into();
    }
    Ok(value)
}

fn config(settings: &Settings, spec: &Spec) -> Value {
    let process = spec.process().as_ref();
    let places = |places: Vec<String>| -> serde_json::Map<String, Value> {
        places.into_iter().map(|place| (place, json!({}))).collect()
    };
    let volumes = settings.volumes.iter().map(|used| used.destination.display().to_string()).collect();
    let health = settings.health.as_ref().map(|health| {
        json!({
            "Test": health.test,
            "Interval": nanoseconds(health.interval),
            "Timeout": nanoseconds(health.timeout),
            "StartPeriod": nanoseconds(health.start_period),
            "Retries": health.retries,
        })
    });
    json!({
        "Hostname": spec.hostname(),
        "User": settings.user,
        "AttachStdin": settings.interactive,
        "Tty": settings.tty,
        "OpenStdin": settings.interactive,
        "ExposedPorts": places(settings.exposed.clone()),
        "Env": process.and_then(|process| process.env().clone()).unwrap_or_default(),
        "Cmd": settings.cmd,
        "Entrypoint": settings.entrypoint,
        "Image": settings.image_name(),
        "Volumes": places(volumes),
        "WorkingDir": process.map(|process| process.cwd().clone()),
        "Labels": settings.labels,
        "Annotations": settings.annotations,
        "StopSignal": settings.stop_signal.to_string(),
        "StopTimeout": settings.stop_timeout,
        "Healthcheck": health,
    })
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn state(state: &State) -> Value {
    let time = |time: Option<Timestamp>| time.map_or_else(|| NEVER.to_owned(), |time| time.to_string());
    let mut value = json!({
        "Status": state.status.name(),
        "Running": state.status.is_alive(),
        "Paused": state.status == Status::Paused,
        "Restarting": state.status == Status::Restarting,
        "OOMKilled": state.oom_killed,
        "Dead": false,
        "Pid": state.pid,
        "MonitorPid": state.monitor,
        "ExitCode": state.exit_code,
        "Error": state.error,
        "StartedAt": time(state.started),
        "FinishedAt": time(state.finished),
    });
    if let Some(health) = &state.health {
        let log: Vec<Value> = health
            .log
            .iter()
            .map(|probe| {
                json!({
                    "Start": probe.start, "End": probe.end, "ExitCode": probe.exit_code, "Output": probe.output,
                })
            })
            .collect();
        value["Health"] = json!({ "Status": health.status, "FailingStreak": health.failing, "Log": log });
    }
    value
}

/// A mount that somebody asked for.
fn mount(mount: &lamel_isolate::oci::Mount, settings: &Settings) -> Option<Value> {
    let volume = settings.volumes.iter().find(|used| used.destination == *mount.destination());
    let options = mount.options().clone().unwrap_or_default();
    let kind = match mount.typ().as_deref() {
        _ if volume.is_some() => "volume",
        // Those of the container's own directory are told elsewhere.
        Some("bind" | "none") if mount.source().as_ref().is_some_and(|source| source.is_absolute()) => "bind",
        _ => return None,
    };
    let propagation = options
        .iter()
        .find(|option| option.ends_with("private") || option.ends_with("shared") || option.ends_with("slave"));
    Some(json!({
        "Type": kind,
        "Name": volume.map(|used| used.name.as_str()).unwrap_or_default(),
        "Source": mount.source(),
        "Destination": mount.destination(),
        "Mode": "",
        "RW": !options.iter().any(|option| option == "ro" || option == "rro"),
        "Propagation": propagation.cloned().unwrap_or_default(),
    }))
}

fn host_config(settings: &Settings, spec: &Spec) -> Value {
    let resources = spec.linux().as_ref().and_then(|linux| linux.resources().as_ref());
    let memory = resources.and_then(|resources| resources.memory().as_ref());
    let cpu = resources.and_then(|resources| resources.cpu().as_ref());
    let bindings = settings.request.bindings();
    json!({
        "NetworkMode": settings.network,
        "PortBindings": bindings,
        "RestartPolicy": { "Name": settings.restart.name(), "MaximumRetryCount": settings.restart.most() },
        "AutoRemove": settings.auto_remove,
        "LogConfig": {
            "Type": if settings.log_driver == super::settings::LogDriver::None { "none" } else { "k8s-file" },
            "Config": settings.log_size.map_or_else(|| json!({}), |size| json!({ "max-size": size.to_string() })),
        },
        "Privileged": settings.privileged,
        "ReadonlyRootfs": spec.root().as_ref().and_then(lamel_isolate::oci::Root::readonly).unwrap_or(false),
        "Init": settings.init,
        "GroupAdd": settings.groups,
        "Memory": memory.and_then(|memory| memory.limit()).unwrap_or(0),
        "MemorySwap": memory.and_then(|memory| memory.swap()).unwrap_or(0),
        "MemoryReservation": memory.and_then(|memory| memory.reservation()).unwrap_or(0),
        "CpuShares": cpu.and_then(|cpu| cpu.shares()).unwrap_or(0),
        "CpuQuota": cpu.and_then(|cpu| cpu.quota()).unwrap_or(0),
        "CpuPeriod": cpu.and_then(|cpu| cpu.period()).unwrap_or(0),
        "CpusetCpus": cpu.and_then(|cpu| cpu.cpus().clone()).unwrap_or_default(),
        "PidsLimit": resources.and_then(|resources| resources.pids().as_ref()).map(|pids| pids.limit()),
    })
}

/// Adds a published port to a map of bindings.
fn bind(mut bindings: serde_json::Map<String, Value>, port: &Port) -> serde_json::Map<String, Value> {
    let binding = json!({ "HostIp": port.address, "HostPort": port.host.to_string() });
    let key = format!("{}/{}", port.container, port.protocol);
    match bindings.get_mut(&key).and_then(Value::as_array_mut) {
        Some(list) => list.push(binding),
        None => drop(bindings.insert(key, json!([binding]))),
    }
    bindings
}

fn network(state: &State) -> Value {
    let ports = if state.status.is_alive() {
        state.ports.iter().fold(serde_json::Map::new(), bind)
    } else {
        serde_json::Map::new()
    };
    let first = state.networks.values().next().cloned().unwrap_or_default();
    let networks: serde_json::Map<String, Value> = state
        .networks
        .iter()
        .map(|(name, endpoint)| {
            let value = json!({
                "IPAddress": endpoint.address,
                "IPPrefixLen": endpoint.prefix,
                "Gateway": endpoint.gateway,
                "MacAddress": endpoint.mac,
            });
            (name.clone(), value)
        })
        .collect();
    json!({
        "Ports": ports,
        "IPAddress": first.address,
        "IPPrefixLen": first.prefix,
        "Gateway": first.gateway,
        "MacAddress": first.mac,
        "Networks": networks,
    })
}
