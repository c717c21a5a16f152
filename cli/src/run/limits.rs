//! Limits: memory, processors, processes, files.

use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};

use anyhow::{Context as _, Result, anyhow, bail};
use lamel_isolate::oci::{
    LinuxBlockIo, LinuxCpu, LinuxCpuBuilder, LinuxMemory, LinuxMemoryBuilder, LinuxPidsBuilder, LinuxResources,
    LinuxThrottleDevice, LinuxThrottleDeviceBuilder, LinuxWeightDevice, LinuxWeightDeviceBuilder, PosixRlimit,
    PosixRlimitBuilder, PosixRlimitType,
};

/// The period of --cpus, in microseconds.
const PERIOD: u64 = 100_000;
/// The least memory that docker takes.
const MIN_MEMORY: i64 = 6 << 20;

/// Options of limits.
#[derive(Debug, Default, clap::Args)]
pub(crate) struct LimitArgs {
    /// Most memory, in bytes or with k, m, g
    #[arg(short, long, value_name = "BYTES")]
    memory: Option<String>,
    /// Most memory and swap together; -1 for any [default: twice --memory]
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true, requires = "memory")]
    memory_swap: Option<String>,
    /// Memory that is taken back first when the host runs short
    #[arg(long, value_name = "BYTES")]
    memory_reservation: Option<String>,
    /// How readily the kernel swaps memory out, 0 to 100 (cgroup v1 alone)
    #[arg(long, value_name = "NUMBER")]
    memory_swappiness: Option<u64>,
    /// Stop the container, instead of killing in it, when its memory is used up (cgroup v1 alone)
    #[arg(long, requires = "memory")]
    oom_kill_disable: bool,
    /// Most processors at a time, as 1.5
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["cpu_period", "cpu_quota"])]
    cpus: Option<f64>,
    /// Microseconds of --cpu-quota's period
    #[arg(long, value_name = "MICROSECONDS")]
    cpu_period: Option<u64>,
    /// Most microseconds of processor time a period
    #[arg(long, value_name = "MICROSECONDS", allow_hyphen_values = true)]
    cpu_quota: Option<i64>,
    /// Share of the processors against other containers [default: 1024]
    #[arg(long, value_name = "WEIGHT")]
    cpu_shares: Option<u64>,
    /// Processors to run on, as 0-2,4
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    cpuset_mems: Option<String>,
    /// Share of disk time, 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    blkio_weight: Option<u16>,
    /// The same on one block device
    #[arg(long, value_name = "DEVICE:WEIGHT")]
    blkio_weight_device: Vec<String>,
    /// Most bytes a second read from a block device
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_read_bps: Vec<String>,
    /// Most bytes a second written to a block device
    #[arg(long, value_name = "DEVICE:BYTES")]
    device_write_bps: Vec<String>,
    /// Most reads a second from a block device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_read_iops: Vec<String>,
    /// Most writes a second to a block device
    #[arg(long, value_name = "DEVICE:NUMBER")]
    device_write_iops: Vec<String>,
    /// Most processes and threads; -1 for any
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// A resource limit of the program, as nofile=1024:2048
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Size of /dev/shm [default: 64m]
    #[arg(long, value_name = "BYTES")]
    shm_size: Option<String>,
    /// A kernel parameter of the container's own namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    sysctl: Vec<String>,
    /// How likely the program is killed when memory is short, -1000 to 1000
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    oom_score_adj: Option<i32>,
}

impl LimitArgs {
    /// Limits that a control group holds.
    pub(crate) fn resources(&self) -> Result<LinuxResources> {
        let mut resources = LinuxResources::default();
        resources.set_devices(None);
        resources.set_memory(self.memory_limits()?);
        resources.set_cpu(self.cpu_limits()?);
        if let Some(limit) = self.pids_limit {
            resources.set_pids(Some(LinuxPidsBuilder::default().limit(limit).build()?));
        }
        resources.set_block_io(self.block_limits()?);
        Ok(resources)
    }

    fn block_limits(&self) -> Result<Option<LinuxBlockIo>> {
        let mut io = LinuxBlockIo::default();
        let in_range = |weight: &u16| (10..=1000).contains(weight);
        if self.blkio_weight.as_ref().is_some_and(|weight| !in_range(weight)) {
            bail!("--blkio-weight is 10 to 1000");
        }
        io.set_weight(self.blkio_weight);
        let weight = |text: &String| -> Result<LinuxWeightDevice> {
            let (major, minor, weight) = on_device(text)?;
            let weight = weight.parse().ok().filter(in_range).context("a weight is 10 to 1000")?;
            Ok(LinuxWeightDeviceBuilder::default().major(major).minor(minor).weight(weight).build()?)
        };
        let weights: Result<Vec<_>> = self
            .blkio_weight_device
            .iter()
            .map(|t| weight(t).with_context(|| format!("--blkio-weight-device {t}")))
            .collect();
        let throttles = |option: &str, texts: &[String], rate: fn(&str) -> Result<u64>| {
            let throttle = |text: &String| -> Result<LinuxThrottleDevice> {
                let (major, minor, value) = on_device(text)?;
                Ok(LinuxThrottleDeviceBuilder::default().major(major).minor(minor).rate(rate(&value)?).build()?)
            };
            let found: Result<Vec<_>> =
                texts.iter().map(|text| throttle(text).with_context(|| format!("--{option} {text}"))).collect();
            found.map(|found| Some(found).filter(|found| !found.is_empty()))
        };
        let count = |text: &str| text.parse().with_context(|| format!("{text}: no number"));
        io.set_weight_device(Some(weights?).filter(|weights| !weights.is_empty()))
            .set_throttle_read_bps_device(throttles("device-read-bps", &self.device_read_bps, bytes)?)
            .set_throttle_write_bps_device(throttles("device-write-bps", &self.device_write_bps, bytes)?)
            .set_throttle_read_iops_device(throttles("device-read-iops", &self.device_read_iops, count)?)
            .set_throttle_write_iops_device(throttles("device-write-iops", &self.device_write_iops, count)?);
        Ok((io != LinuxBlockIo::default()).then_some(io))
    }

    fn memory_limits(&self) -> Result<Option<LinuxMemory>> {
        let mut memory = LinuxMemoryBuilder::default();
        if let Some(text) = &self.memory {
            let limit = signed(text).context("--memory")?;
            if limit < MIN_MEMORY {
                bail!("--memory: at least 6m");
            }
            let swap = match self.memory_swap.as_deref() {
                Some("-1") => -1,
                Some(text) => signed(text).context("--memory-swap")?,
                None => limit.saturating_mul(2),
            };
            if (0..limit).contains(&swap) {
                bail!("--memory-swap is memory and swap together, and so no less than --memory");
            }
            memory = memory.limit(limit).swap(swap);
        }
        if let Some(text) = &self.memory_reservation {
            memory = memory.reservation(signed(text).context("--memory-reservation")?);
        }
        if let Some(swappiness) = self.memory_swappiness {
            if swappiness > 100 {
                bail!("--memory-swappiness is 0 to 100");
            }
            memory = memory.swappiness(swappiness);
        }
        if self.oom_kill_disable {
            memory = memory.disable_oom_killer(true);
        }
        let memory = memory.build()?;
        Ok((memory != LinuxMemory::default()).then_some(memory))
    }

    fn cpu_limits(&self) -> Result<Option<LinuxCpu>> {
        let mut cpu = LinuxCpuBuilder::default();
        if let Some(cpus) = self.cpus {
            if !(0.01..=100_000.0).contains(&cpus) {
                bail!("--cpus: between 0.01 and the number of processors");
            }
            #[allow(clippy::cast_possible_truncation, reason = "the range was just checked")]
            let quota = (cpus * 100_000.0) as i64;
            cpu = cpu.quota(quota).period(PERIOD);
        }
        for (value, set) in
            [(self.cpu_period, LinuxCpuBuilder::period as fn(_, u64) -> _), (self.cpu_shares, LinuxCpuBuilder::shares)]
        {
            if let Some(value) = value {
                cpu = set(cpu, value);
            }
        }
        if let Some(quota) = self.cpu_quota {
            cpu = cpu.quota(quota);
        }
        if let Some(cpus) = &self.cpuset_cpus {
            cpu = cpu.cpus(list("--cpuset-cpus", cpus)?);
        }
        if let Some(mems) = &self.cpuset_mems {
            cpu = cpu.mems(list("--cpuset-mems", mems)?);
        }
        let cpu = cpu.build()?;
        Ok((cpu != LinuxCpu::default()).then_some(cpu))
    }

    /// Limits of the program's process.
    pub(crate) fn rlimits(&self) -> Result<Vec<PosixRlimit>> {
        self.ulimit.iter().map(|text| rlimit(text).with_context(|| format!("--ulimit {text}"))).collect()
    }

    pub(crate) fn shm_bytes(&self) -> Result<u64> {
        self.shm_size.as_deref().map_or(Ok(64 << 20), |text| bytes(text).context("--shm-size"))
    }

    pub(crate) fn sysctls(&self) -> Result<Vec<(String, String)>> {
        let pair = |text: &String| {
            let (name, value) = text.split_once('=').ok_or_else(|| anyhow!("--sysctl {text}: needs NAME=VALUE"))?;
            Ok((name.to_owned(), value.to_owned()))
        };
        self.sysctl.iter().map(pair).collect()
    }

    pub(crate) fn oom_score_adj(&self) -> Result<Option<i32>> {
        match self.oom_score_adj {
            Some(score) if !(-1000..=1000).contains(&score) => bail!("--oom-score-adj is -1000 to 1000"),
            score => Ok(score),
        }
    }
}

/// `DEVICE:VALUE`: the numbers of a block device of the host, and the value.
fn on_device(text: &str) -> Result<(i64, i64, String)> {
    let (path, value) = text.rsplit_once(':').context("needs DEVICE:VALUE")?;
    let meta = std::fs::metadata(path).with_context(|| path.to_owned())?;
    if !meta.file_type().is_block_device() {
        bail!("{path} is no block device");
    }
    let (major, minor) = (rustix::fs::major(meta.rdev()), rustix::fs::minor(meta.rdev()));
    Ok((major.into(), minor.into(), value.to_owned()))
}

/// A list of numbers, which the kernel reads itself.
fn list(option: &str, text: &str) -> Result<String> {
    if text.is_empty() || !text.chars().all(|c| c.is_ascii_digit() || ",-".contains(c)) {
        bail!("{option} {text}: a list as 0-2,4");
    }
    Ok(text.to_owned())
}

/// A size as docker reads it: a number, perhaps with b, k, m, g or t.
pub(crate) fn bytes(text: &str) -> Result<u64> {
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        "t" | "tb" | "tib" => 1_u64 << 40,
        unit => bail!("{text}: unit {unit} is none of b, k, m, g, t"),
    };
    let number: u64 = digits.parse().with_context(|| format!("{text}: no size"))?;
    number.checked_mul(unit).filter(|size| i64::try_from(*size).is_ok()).ok_or_else(|| anyhow!("{text}: too large"))
}

fn signed(text: &str) -> Result<i64> {
    Ok(i64::try_from(bytes(text)?)?)
}

fn rlimit(text: &str) -> Result<PosixRlimit> {
    let (name, values) = text.split_once('=').context("needs NAME=SOFT[:HARD]")?;
    let kind = match name {
        "core" => PosixRlimitType::RlimitCore,
        "cpu" => PosixRlimitType::RlimitCpu,
        "data" => PosixRlimitType::RlimitData,
        "fsize" => PosixRlimitType::RlimitFsize,
        "locks" => PosixRlimitType::RlimitLocks,
        "memlock" => PosixRlimitType::RlimitMemlock,
        "msgqueue" => PosixRlimitType::RlimitMsgqueue,
        "nice" => PosixRlimitType::RlimitNice,
        "nofile" => PosixRlimitType::RlimitNofile,
        "nproc" => PosixRlimitType::RlimitNproc,
        "rss" => PosixRlimitType::RlimitRss,
        "rtprio" => PosixRlimitType::RlimitRtprio,
        "rttime" => PosixRlimitType::RlimitRttime,
        "sigpending" => PosixRlimitType::RlimitSigpending,
        "stack" => PosixRlimitType::RlimitStack,
        "as" => PosixRlimitType::RlimitAs,
        _ => bail!("no limit {name}"),
    };
    let (soft, hard) = values.split_once(':').unwrap_or((values, values));
    let number = |text: &str| match text {
        "-1" | "unlimited" => Ok(u64::MAX),
        number => number.parse::<u64>().with_context(|| format!("{number}: no number")),
    };
    let (soft, hard) = (number(soft)?, number(hard)?);
    if soft > hard {
        bail!("the soft limit is above the hard one");
    }
    Ok(PosixRlimitBuilder::default().typ(kind).soft(soft).hard(hard).build()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        for (text, size) in
            [("0", 0), ("512b", 512), ("64k", 65536), ("1M", 1 << 20), ("2gb", 2 << 30), ("1t", 1 << 40)]
        {
            assert_eq!(bytes(text).unwrap(), size, "{text}");
        }
        for text in ["", "m", "1x", "-1", "1.5g", "99999999999t"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_as_docker_s_options() {
        let args = LimitArgs {
            memory: Some("64m".to_owned()),
            cpus: Some(1.5),
            pids_limit: Some(10),
            cpuset_cpus: Some("0-1".to_owned()),
            ..Default::default()
        };
        let resources = args.resources().unwrap();
        let (memory, cpu) = (resources.memory().unwrap(), resources.cpu().clone().unwrap());
        assert_eq!((memory.limit(), memory.swap()), (Some(64 << 20), Some(128 << 20)));
        assert_eq!((cpu.quota(), cpu.period(), cpu.cpus().as_deref()), (Some(150_000), Some(100_000), Some("0-1")));
        assert_eq!(resources.pids().unwrap().limit(), 10);
        assert_eq!(LimitArgs::default().resources().unwrap(), {
            let mut none = LinuxResources::default();
            none.set_devices(None);
            none
        });
        for args in [
            LimitArgs { memory: Some("1m".to_owned()), ..Default::default() },
            LimitArgs { memory: Some("64m".to_owned()), memory_swap: Some("32m".to_owned()), ..Default::default() },
            LimitArgs { cpus: Some(0.0), ..Default::default() },
            LimitArgs { memory_swappiness: Some(101), ..Default::default() },
            LimitArgs { cpuset_cpus: Some("0;1".to_owned()), ..Default::default() },
            LimitArgs { blkio_weight: Some(1), ..Default::default() },
            LimitArgs { device_read_bps: vec!["/dev/null:1m".to_owned()], ..Default::default() },
            LimitArgs { device_write_iops: vec!["/dev/nowhere:1".to_owned()], ..Default::default() },
            LimitArgs { blkio_weight_device: vec!["/dev/null".to_owned()], ..Default::default() },
        ] {
            assert!(args.resources().is_err(), "{args:?}");
        }
    }

    #[test]
    fn ulimits_have_one_value_or_two() {
        let limit = rlimit("nofile=10:20").unwrap();
        assert_eq!((limit.soft(), limit.hard()), (10, 20));
        assert_eq!(rlimit("core=-1").unwrap().hard(), u64::MAX);
        for text in ["nofile", "nofile=", "nofile=2:1", "files=1", "nofile=1:2:3"] {
            assert!(rlimit(text).is_err(), "{text}");
        }
    }
}
