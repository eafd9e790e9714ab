//! The allocator, how OpenSSL begins, and arguments to commands; nothing else.

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

/// The allocator's settings, read from this symbol before `main` ([jemalloc(3)], TUNING). The environment's
/// `MALLOC_CONF` goes before them.
///
/// Two arenas, for the three stages hand everything on from thread to thread and gain nothing by more; pages that are
/// not used go back after a second instead of ten. Both together keep the peak 30 to 40 MiB lower.
///
/// [jemalloc(3)]: https://jemalloc.net/jemalloc.3.html
#[expect(
    unsafe_code,
    reason = "a symbol by name; nothing else has this one, and a text that ends in NUL is what it must be"
)]
#[unsafe(export_name = "malloc_conf")]
static MALLOC_CONF: &[u8; 30] = b"narenas:2,dirty_decay_ms:1000\0";

fn main() -> ExitCode {
    // So that OpenSSL does not end itself when the process exits, as it does where librdkafka is the first to begin it. Threads
    // that still close connections to Kafka would use it, and crash a process whose work was done.
    openssl_sys::init();
    stock_verifier::cli::main()
}
