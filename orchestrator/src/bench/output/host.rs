//! The machine's fingerprint: what a reader needs to judge a figure or to repeat it.

use std::fs;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A machine.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub struct Host {
    /// The processor's name.
    pub cpu: String,
    /// Processors online.
    pub cpus: usize,
    /// The frequency that is told, in MHz.
    pub mhz: Option<f64>,
    /// Last level cache.
    pub cache: Option<String>,
    /// Whether it is a virtual machine.
    pub virtual_machine: bool,
    /// The frequency governor, where there is one.
    pub governor: Option<String>,
    /// Memory in MiB.
    pub memory_mib: u64,
    /// 2 MiB pages: in all, and free.
    pub huge_pages: (u64, u64),
    /// Kernel release.
    pub kernel: String,
    /// What the kernel's command line says of isolation, huge pages, idling and mitigations.
    pub kernel_parameters: String,
    /// The distribution.
    pub system: String,
    /// Version of the program that measured.
    pub chainplane: String,
    /// How it was built: `release` or `debug`.
    pub build: String,
}

impl Host {
    /// This machine, now.
    pub fn here() -> Self {
        let cpuinfo = read("/proc/cpuinfo");
        let meminfo = read("/proc/meminfo");
        let of = |key| field(&cpuinfo, key);
        let memory = |key| {
            field(&meminfo, key)
                .and_then(|value| value.split(' ').next()?.parse().ok())
                .unwrap_or(0)
        };
        let named = |text: &str| text.trim().to_owned();
        let governor = read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
        Self {
            cpu: of("model name").unwrap_or_default(),
            cpus: cpuinfo
                .lines()
                .filter(|line| line.starts_with("processor"))
                .count(),
            mhz: of("cpu MHz").and_then(|mhz| mhz.parse().ok()),
            cache: of("cache size"),
            virtual_machine: of("flags")
                .is_some_and(|flags| flags.split(' ').any(|f| f == "hypervisor")),
            governor: (!governor.is_empty()).then(|| named(&governor)),
            memory_mib: memory("MemTotal") >> 10,
            huge_pages: (memory("HugePages_Total"), memory("HugePages_Free")),
            kernel: named(&read("/proc/sys/kernel/osrelease")),
            kernel_parameters: parameters(&read("/proc/cmdline")),
            system: system(&read("/etc/os-release")),
            chainplane: env!("CARGO_PKG_VERSION").to_owned(),
            build: build().to_owned(),
        }
    }

    /// In lines of name and value, for reports.
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mhz = self.mhz.map(|mhz| format!(", {:.2} GHz", mhz / 1e3));
        let place = if self.virtual_machine {
            ", virtual machine"
        } else {
            ""
        };
        let (total, free) = self.huge_pages;
        vec![
            (
                "processor",
                format!("{}{}{place}", self.cpu, mhz.unwrap_or_default()),
            ),
            ("processors online", self.cpus.to_string()),
            (
                "cache",
                self.cache.clone().unwrap_or_else(|| "not told".into()),
            ),
            (
                "frequency governor",
                self.governor.clone().unwrap_or_else(|| "not told".into()),
            ),
            ("memory", format!("{} MiB", self.memory_mib)),
            ("2 MiB pages", format!("{total}, {free} free")),
            ("kernel", self.kernel.clone()),
            ("kernel parameters", self.kernel_parameters.clone()),
            ("system", self.system.clone()),
            (
                "chainplane",
                format!("{}, {} build", self.chainplane, self.build),
            ),
        ]
    }
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// The first value of `key` in a file of `key : value` lines.
fn field(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().to_owned())
}

/// The parameters that change how fast packets go. The rest is nobody's business.
fn parameters(line: &str) -> String {
    const KNOWN: [&str; 16] = [
        "isolcpus",
        "nohz_full",
        "rcu_nocbs",
        "nohz",
        "irqaffinity",
        "mitigations",
        "hugepages",
        "hugepagesz",
        "default_hugepagesz",
        "transparent_hugepage",
        "intel_pstate",
        "amd_pstate",
        "idle",
        "cpuidle.off",
        "nosmt",
        "iommu",
    ];
    let named = line
        .split_whitespace()
        .filter(|word| KNOWN.contains(&word.split('=').next().unwrap_or_default()));
    named.collect::<Vec<_>>().join(" ")
}

fn system(release: &str) -> String {
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="));
    name.unwrap_or("unknown").trim_matches('"').to_owned()
}

const fn build() -> &'static str {
    if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    }
}

/// Now, as RFC 3339 in UTC.
pub fn now() -> String {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    rfc3339(since.map_or(0, |since| since.as_secs()))
}

/// Seconds since 1970 as RFC 3339 (the civil date by counting days in eras of 400 years).
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March, so that the leap day is their last.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month + 2) / 5 + 1;
    let (month, carry) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    let year = era * 400 + year_of_era + carry;
    let (hour, minute, second) = (rest / 3_600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        let known = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, text) in known {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn only_parameters_that_matter_are_told() {
        let line = "console=ttyS0 isolcpus=2-3 secret=1 mitigations=off hugepages=512";
        assert_eq!(
            parameters(line),
            "isolcpus=2-3 mitigations=off hugepages=512"
        );
    }

    #[test]
    fn this_machine_has_a_kernel_and_processors() {
        let host = Host::here();
        assert!(
            host.cpus > 0 && !host.kernel.is_empty() && host.memory_mib > 0,
            "{host:?}"
        );
    }
}
