//! Network interfaces of a container: links, addresses and routes by rtnetlink(7), without any program.
//!
//! What they are called, which addresses there are and who may have them is
//! the caller's business; here is only how the kernel is told.

mod conntrack;
mod helper;
mod link;
mod route;
mod socket;

pub use conntrack::forget_datagrams;
pub use helper::Helper;
pub use link::{Mac, Peer};
pub use socket::Netlink;

use rustix::io::Errno;

/// What went wrong in talking to the kernel about the network.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// The kernel refused.
    #[error("{doing}: {errno}{}", advice(*.errno))]
    Kernel {
        /// What was to be done.
        doing: String,
        /// The kernel's answer.
        errno: Errno,
    },
    /// The kernel answered something else than it should.
    #[error("{doing}: the kernel's answer cannot be read: {why}")]
    Answer {
        /// What was to be done.
        doing: String,
        /// What is wrong with it.
        why: String,
    },
}

fn advice(errno: Errno) -> &'static str {
    match errno {
        Errno::OPNOTSUPP | Errno::AFNOSUPPORT => "; the kernel needs the modules bridge and veth",
        Errno::PERM => "; it needs CAP_NET_ADMIN",
        _ => "",
    }
}

impl NetError {
    /// The kernel's answer, if it gave one.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Kernel { errno, .. } => Some(*errno),
            Self::Answer { .. } => None,
        }
    }
}

/// Names what is being done, for `map_err`.
fn doing(what: impl Into<String>) -> impl FnOnce(Errno) -> NetError {
    let doing = what.into();
    move |errno| NetError::Kernel { doing, errno }
}
