//! The process itself, under the names that every exporter uses.

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric as _};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

/// Reads /proc when it is asked. Shows nothing where there is none.
#[derive(Debug)]
pub(super) struct ProcessCollector;

/// What /proc says of this process.
struct Usage {
    cpu_seconds: f64,
    resident_bytes: u64,
    open_fds: u64,
    start_seconds: f64,
}

#[expect(clippy::cast_precision_loss, reason = "ticks of a clock, far below 2^52")]
fn usage() -> Option<Usage> {
    let process = procfs::process::Process::myself().ok()?;
    let stat = process.stat().ok()?;
    let ticks = procfs::ticks_per_second() as f64;
    Some(Usage {
        cpu_seconds: (stat.utime + stat.stime) as f64 / ticks,
        resident_bytes: stat.rss * procfs::page_size(),
        open_fds: u64::try_from(process.fd_count().ok()?).ok()?,
        start_seconds: procfs::boot_time_secs().ok()? as f64 + stat.starttime as f64 / ticks,
    })
}

impl Collector for ProcessCollector {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(usage) = usage() else { return Ok(()) };
        let mut gauge = |name, help, value: f64| {
            let metric = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(value).encode(metric)
        };
        #[expect(clippy::cast_precision_loss, reason = "below 2^52")]
        let (resident, fds) = (usage.resident_bytes as f64, usage.open_fds as f64);
        gauge("process_resident_memory_bytes", "Memory of this process that is in RAM", resident)?;
        gauge("process_open_fds", "Open file descriptors", fds)?;
        gauge("process_start_time_seconds", "When this process started, since 1970", usage.start_seconds)?;
        let metric = encoder.encode_descriptor(
            "process_cpu_seconds",
            "Processor time used by this process",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(usage.cpu_seconds).encode(metric)
    }
}
