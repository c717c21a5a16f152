//! Resource limits of the process.

use oci_spec::runtime::{PosixRlimit, PosixRlimitType};

use crate::error::{Called as _, Error, Fault};
use crate::sys::process;

/// One limit, ready for setrlimit(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Limit {
    resource: u32,
    soft: u64,
    hard: u64,
}

/// Reads the limits of the configuration.
pub(crate) fn plan(limits: &[PosixRlimit]) -> Result<Vec<Limit>, Error> {
    let mut planned: Vec<Limit> = Vec::new();
    for limit in limits {
        let resource = number(limit.typ());
        if planned.iter().any(|other| other.resource == resource) {
            return Err(Error::invalid("process.rlimits", format!("{} is given twice", limit.typ())));
        }
        if limit.soft() > limit.hard() {
            return Err(Error::invalid("process.rlimits", format!("{}: soft limit above the hard one", limit.typ())));
        }
        planned.push(Limit { resource, soft: limit.soft(), hard: limit.hard() });
    }
    Ok(planned)
}

fn number(kind: PosixRlimitType) -> u32 {
    match kind {
        PosixRlimitType::RlimitCpu => libc::RLIMIT_CPU,
        PosixRlimitType::RlimitFsize => libc::RLIMIT_FSIZE,
        PosixRlimitType::RlimitData => libc::RLIMIT_DATA,
        PosixRlimitType::RlimitStack => libc::RLIMIT_STACK,
        PosixRlimitType::RlimitCore => libc::RLIMIT_CORE,
        PosixRlimitType::RlimitRss => libc::RLIMIT_RSS,
        PosixRlimitType::RlimitNproc => libc::RLIMIT_NPROC,
        PosixRlimitType::RlimitNofile => libc::RLIMIT_NOFILE,
        PosixRlimitType::RlimitMemlock => libc::RLIMIT_MEMLOCK,
        PosixRlimitType::RlimitAs => libc::RLIMIT_AS,
        PosixRlimitType::RlimitLocks => libc::RLIMIT_LOCKS,
        PosixRlimitType::RlimitSigpending => libc::RLIMIT_SIGPENDING,
        PosixRlimitType::RlimitMsgqueue => libc::RLIMIT_MSGQUEUE,
        PosixRlimitType::RlimitNice => libc::RLIMIT_NICE,
        PosixRlimitType::RlimitRtprio => libc::RLIMIT_RTPRIO,
        PosixRlimitType::RlimitRttime => libc::RLIMIT_RTTIME,
    }
}

impl Limit {
    pub(crate) fn perform(self) -> Result<(), Fault> {
        process::set_limit(self.resource, self.soft, self.hard).called("setrlimit")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use oci_spec::runtime::PosixRlimitBuilder;

    #[test]
    fn a_limit_is_given_once_and_in_order() {
        let limit = |soft: u64, hard: u64| {
            PosixRlimitBuilder::default().typ(PosixRlimitType::RlimitNofile).soft(soft).hard(hard).build().unwrap()
        };
        assert_eq!(plan(&[limit(1, 2)]).unwrap(), [Limit { resource: libc::RLIMIT_NOFILE, soft: 1, hard: 2 }]);
        assert!(plan(&[limit(1, 2), limit(1, 2)]).is_err() && plan(&[limit(3, 2)]).is_err());
    }
}
