//! What the benchmarks share: CPU time by thread, a homeserver that is a map, and machines that
//! are driven without a network.

#[allow(dead_code, reason = "not every benchmark needs all of it")]
pub mod cpu;
#[allow(dead_code, reason = "not every benchmark needs all of it")]
pub mod megolm;
pub mod people;

/// The middle of several measurements, so that one disturbed round does not count.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

/// A number that the command line gives as `--name N`.
pub fn option(name: &str, default: usize) -> usize {
    let mut words = std::env::args().skip_while(|word| word != name);
    words.next();
    words.next().map_or(default, |n| n.parse().unwrap())
}

/// What the figures were measured on.
pub fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(0, usize::from);
    let info = read("/proc/cpuinfo");
    let model = info
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    let model = model.map_or("unknown", |line| line.trim_start_matches([' ', '\t', ':']));
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel = kernel.split('-').next().unwrap_or_default().trim();
    format!("{cpus} cores ({model}), Linux {kernel}")
}
