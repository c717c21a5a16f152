//! The users that tests work as.

use super::sh;

/// Who works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    Root,
    /// A plain user with a range in /etc/subuid (tests/run.sh makes him).
    User,
    /// A plain user who has his own id alone.
    Alone,
}

pub const EVERYBODY: [Who; 3] = [Who::Root, Who::User, Who::Alone];

impl Who {
    pub fn id(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::User => sh("id -u lamel-test").parse().unwrap(),
            // Nobody has an account for it.
            Self::Alone => 47_110,
        }
    }

    /// The beginning of a command line that runs as this user, without anything of the test's environment.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Root => "setpriv --reuid 0 --regid 0 --clear-groups env -i",
            Self::User => "setpriv --reuid lamel-test --regid lamel-test --init-groups env -i",
            Self::Alone => "setpriv --reuid 47110 --regid 47110 --clear-groups env -i",
        }
    }
}
