//! What the figures were measured on, and who runs where.

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The cores a server and a client are pinned to. On a machine with one core both share it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cores {
    pub(crate) server: usize,
    pub(crate) client: usize,
}

impl Cores {
    /// The first two cores that this process may run on.
    pub(crate) fn pick() -> std::io::Result<Self> {
        let allowed = sched_getaffinity(None)?;
        let mut cores = (0..CpuSet::MAX_CPU).filter(|&core| allowed.is_set(core));
        let server = cores.next().unwrap_or(0);
        Ok(Self { server, client: cores.next().unwrap_or(server) })
    }
}

/// Keeps this process, before it starts any thread, on one core.
pub(crate) fn pin(core: usize) -> std::io::Result<()> {
    let mut only = CpuSet::new();
    only.set(core);
    Ok(sched_setaffinity(None, &only)?)
}

/// One line about the machine.
pub(crate) fn describe() -> String {
    let line = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let value = text.lines().find_map(|line| line.strip_prefix(key)).unwrap_or_default();
        value.trim_start_matches([' ', '\t', ':']).trim().to_owned()
    };
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let model = line("/proc/cpuinfo", "model name");
    format!("{model}, {cores} cores in use, Linux {}", line("/proc/sys/kernel/osrelease", ""))
}
