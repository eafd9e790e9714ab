//! A network that loses answers: a TCP proxy that understands just enough of what passes.

use std::collections::HashSet;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::wait;

/// What is done with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// It passes, and so does its answer.
    Pass,
    /// It is lost, and the connection breaks.
    Cut,
    /// It arrives and is answered, but the answer is lost and the connection breaks.
    LoseAnswer,
    /// It arrives and is answered, but the answer comes only after so many seconds.
    Delay(u64),
    /// It arrives only after so many seconds, and with it whatever comes after it on its connection.
    Hold(u64),
    /// It arrives, and then nothing passes any more, neither way, not even that a side hung up: a host that vanished.
    Silence,
}

/// What passes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// Kafka's protocol: requests are looked at one by one.
    Kafka,
    /// PostgreSQL's: what arrives together is looked at together, and answered before the next comes.
    Postgres,
}

type Rule = dyn Fn(&[u8]) -> Act + Send + Sync;

/// A proxy; what it forwards ends when it is dropped.
pub struct Proxy {
    /// Where it listens.
    pub address: SocketAddr,
    /// Requests that did not simply pass.
    pub acted: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    accepting: Option<std::thread::JoinHandle<()>>,
}

impl Proxy {
    /// Listens at one address (port 0: any) and forwards to another; `rule` looks at each request.
    pub fn start(
        wire: Wire,
        listen: &str,
        upstream: &str,
        rule: impl Fn(&[u8]) -> Act + Send + Sync + 'static,
    ) -> Self {
        // The test before this one may have used the same port.
        let listener = wait::value("the proxy's port is free", Duration::from_secs(30), || {
            TcpListener::bind(listen).ok()
        });
        let address = listener.local_addr().expect("an address");
        let upstream = upstream.to_owned();
        let over = Arc::new(AtomicBool::new(false));
        let acted = Arc::new(AtomicU64::new(0));
        let rule: Arc<Rule> = Arc::new(rule);
        let accepting = std::thread::spawn({
            let (over, acted) = (Arc::clone(&over), Arc::clone(&acted));
            move || {
                let mut open: Vec<TcpStream> = Vec::new();
                for client in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        break;
                    }
                    // A server that is away is to the client what a broken connection is.
                    let (Ok(client), Ok(server)) = (client, TcpStream::connect(&upstream)) else { continue };
                    let _ = (client.set_nodelay(true), server.set_nodelay(true));
                    open.extend(client.try_clone());
                    let link = Arc::new(Link {
                        wire,
                        rule: Arc::clone(&rule),
                        acted: Arc::clone(&acted),
                        over: Arc::clone(&over),
                        silent: AtomicBool::new(false),
                        losing: Mutex::default(),
                        delaying: Mutex::default(),
                        client,
                        server,
                    });
                    let back = Arc::clone(&link);
                    std::thread::spawn(move || drop((link.requests(), link.close())));
                    std::thread::spawn(move || drop((back.answers(), back.close())));
                }
                for client in open {
                    let _ = client.shutdown(Shutdown::Both);
                }
            }
        });
        Self { address, acted, over, accepting: Some(accepting) }
    }

    /// How many requests did not simply pass.
    pub fn acted(&self) -> u64 {
        self.acted.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

/// One connection. Numbers are Kafka's correlation ids; with PostgreSQL there is one request at a time, number 0.
struct Link {
    wire: Wire,
    rule: Arc<Rule>,
    acted: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
    silent: AtomicBool,
    losing: Mutex<HashSet<u32>>,
    delaying: Mutex<Vec<(u32, u64)>>,
    client: TcpStream,
    server: TcpStream,
}

impl Link {
    fn close(&self) {
        let _ = (self.client.shutdown(Shutdown::Both), self.server.shutdown(Shutdown::Both));
    }

    fn requests(&self) -> std::io::Result<()> {
        while let Some(request) = self.next(&self.client)? {
            let number = self.number(&request, 8);
            let act = (self.rule)(&request[self.header()..]);
            if act != Act::Pass {
                self.acted.fetch_add(1, Ordering::SeqCst);
            }
            match act {
                Act::Pass => {}
                Act::Cut => return Ok(()),
                Act::LoseAnswer => drop(lock(&self.losing).insert(number)),
                Act::Delay(seconds) => lock(&self.delaying).push((number, seconds)),
                Act::Hold(seconds) => std::thread::sleep(Duration::from_secs(seconds)),
                Act::Silence => self.silent.store(true, Ordering::SeqCst),
            }
            (&self.server).write_all(&request)?;
            if act == Act::Silence {
                self.stay_silent();
                return Ok(());
            }
        }
        Ok(())
    }

    fn answers(&self) -> std::io::Result<()> {
        while let Some(answer) = self.next(&self.server)? {
            let number = self.number(&answer, 4);
            if self.silent.load(Ordering::SeqCst) {
                continue;
            }
            if lock(&self.losing).contains(&number) {
                return Ok(());
            }
            let delay = {
                let mut delaying = lock(&self.delaying);
                let place = delaying.iter().position(|(delayed, _)| *delayed == number);
                place.map(|place| delaying.swap_remove(place).1)
            };
            if let Some(seconds) = delay {
                std::thread::sleep(Duration::from_secs(seconds));
            }
            (&self.client).write_all(&answer)?;
        }
        Ok(())
    }

    /// Reads no more of what the client says, not even that it hangs up.
    fn stay_silent(&self) {
        while !self.over.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn header(&self) -> usize {
        if self.wire == Wire::Kafka { 4 } else { 0 }
    }

    /// The number that joins an answer with its request.
    fn number(&self, frame: &[u8], at: usize) -> u32 {
        match (self.wire, frame.get(at..at + 4)) {
            (Wire::Kafka, Some(bytes)) => u32::from_be_bytes(bytes.try_into().expect("four bytes")),
            _ => 0,
        }
    }

    fn next(&self, mut from: &TcpStream) -> std::io::Result<Option<Vec<u8>>> {
        match self.wire {
            Wire::Kafka => {
                let mut frame = vec![0; 4];
                from.read_exact(&mut frame)?;
                let length = u32::from_be_bytes(frame[..4].try_into().expect("four bytes"));
                frame.resize(4 + length as usize, 0);
                from.read_exact(&mut frame[4..])?;
                Ok(Some(frame))
            }
            Wire::Postgres => {
                let mut chunk = vec![0; 1 << 16];
                let length = from.read(&mut chunk)?;
                chunk.truncate(length);
                Ok((length > 0).then_some(chunk))
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Which of Kafka's requests this is.
pub fn api_key(request: &[u8]) -> u16 {
    u16::from_be_bytes([request[0], request[1]])
}

/// Kafka's numbers for the requests that tests look for.
pub mod api {
    /// Records are sent.
    pub const PRODUCE: u16 = 0;
    /// Records are asked for.
    pub const FETCH: u16 = 1;
    /// A member joins its group, or joins it again.
    pub const JOIN_GROUP: u16 = 11;
    /// Partitions join a transaction.
    pub const ADD_PARTITIONS: u16 = 24;
    /// Offsets join a transaction.
    pub const ADD_OFFSETS: u16 = 25;
    /// A transaction is committed or aborted.
    pub const END: u16 = 26;
    /// Offsets are sent in a transaction.
    pub const OFFSET_COMMIT: u16 = 28;
}
