//! Connections: taken, bounded and ended.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

#[cfg(target_os = "linux")]
use super::bounds::WRITE_LIMIT;
use super::bounds::{HEAD_LIMIT, MAX_CONNECTIONS, MAX_HEAD_BYTES, STOP_LIMIT};

/// Pause after a connection could not be taken: out of files, say, which only passes with time.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Most connections: not more than half of the files that this process may open.
fn most_connections() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
    let files = files.and_then(|line| line.split_whitespace().next()?.parse::<usize>().ok());
    files.map_or(MAX_CONNECTIONS, |files| MAX_CONNECTIONS.min(files / 2)).max(1)
}

/// Sets what answers on this connection need. Where something cannot be set, it is served all the same.
fn prepare(stream: &TcpStream) {
    // Answers are small: not to be kept back until the last one is acknowledged.
    let _ = stream.set_nodelay(true);
    // Nothing else bounds how long an answer is being written: the other side may read none of it, and be alive.
    #[cfg(target_os = "linux")]
    let _ = rustix::net::sockopt::set_tcp_user_timeout(
        stream,
        u32::try_from(WRITE_LIMIT.as_millis()).unwrap_or(u32::MAX),
    );
}

/// Serves until stopped; then what is under way is finished, within a bound. HTTP/1.1, which all probes, scrapers and
/// proxies speak.
pub(super) async fn serve(listener: TcpListener, router: Router, stop: CancellationToken) {
    let permits = Arc::new(Semaphore::new(most_connections()));
    let connections = GracefulShutdown::new();
    loop {
        // The next one waits in the kernel until one of them ends.
        let next = async {
            // Holds because nobody closes it.
            let permit = Arc::clone(&permits).acquire_owned().await.expect("the semaphore is open");
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = stop.cancelled() => break,
            next = next => next,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection was not taken");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        prepare(&stream);
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_LIMIT)
            .max_header_size(MAX_HEAD_BYTES)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = connections.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended");
            }
            drop(permit);
        });
    }
    drop(listener);
    if tokio::time::timeout(STOP_LIMIT, connections.shutdown()).await.is_err() {
        tracing::debug!("not all requests were answered within {STOP_LIMIT:?}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn a_connection_ends_whose_other_side_takes_nothing_of_an_answer() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let asking = TcpStream::connect(listener.local_addr().unwrap());
        let (_asking, accepted) = tokio::join!(asking, listener.accept());
        let (stream, _) = accepted.unwrap();
        let limit = || rustix::net::sockopt::tcp_user_timeout(&stream).unwrap();
        assert_eq!(limit(), 0, "the kernel's own, which is a quarter of an hour or none");
        prepare(&stream);
        assert_eq!(u128::from(limit()), WRITE_LIMIT.as_millis());
        assert!(stream.nodelay().unwrap());
    }
}
