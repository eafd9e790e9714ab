//! PostgreSQL behind a proxy that lets statements pass one at a time, when a test says so.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use super::proxy::{Act, Proxy, Wire};

/// The sessions of one store, whose statements take turns with those of others. There is one session that talks at a time,
/// or the turns are of no use.
pub struct Turns {
    proxy: Proxy,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    is_gated: bool,
    /// Statements that may pass.
    allowed: usize,
    /// Whether one waits.
    waits: bool,
}

impl Turns {
    /// In front of the server that this URL names; everything passes at first.
    pub fn before(url: &str) -> Self {
        let url = url::Url::parse(url).expect("a URL");
        let upstream = format!("{}:{}", url.host_str().expect("a host"), url.port().unwrap_or(5432));
        let shared = Arc::<Shared>::default();
        let gate = Arc::clone(&shared);
        let proxy = Proxy::start(Wire::Postgres, "127.0.0.1:0", &upstream, move |chunk| {
            gate.wait(chunk);
            Act::Pass
        });
        Self { proxy, shared }
    }

    /// The URL through the proxy.
    pub fn url(&self, url: &str) -> String {
        let mut url = url::Url::parse(url).expect("a URL");
        url.set_port(Some(self.proxy.address.port())).expect("a port");
        url.set_host(Some("127.0.0.1")).expect("a host");
        url.into()
    }

    /// From here on each statement waits until it is allowed.
    pub fn gate(&self) {
        let mut state = self.shared.state();
        (state.is_gated, state.allowed) = (true, 0);
    }

    /// From here on everything passes.
    pub fn open(&self) {
        self.shared.state().is_gated = false;
        self.shared.changed.notify_all();
    }

    /// Lets one statement pass, which waits.
    pub fn allow_one(&self) {
        let mut state = self.shared.state();
        assert!(state.waits, "no statement waits");
        // It waits no more from now on, whenever its thread notices.
        (state.allowed, state.waits) = (1, false);
        self.shared.changed.notify_all();
    }

    /// Whether a statement waits to be allowed.
    pub fn is_waiting(&self) -> bool {
        self.shared.state().waits
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until this may pass.
    fn wait(&self, chunk: &[u8]) {
        let mut state = self.state();
        if begins_statement(chunk) && state.is_gated {
            state.waits = true;
            let allowed = |state: &mut State| state.is_gated && state.allowed == 0;
            state = self.changed.wait_while(state, allowed).unwrap_or_else(PoisonError::into_inner);
            (state.waits, state.allowed) = (false, 0);
        }
    }
}

/// Whether this carries a statement out: a query in one message (`Q`), or one that was prepared (`B`). What prepares one,
/// rows of a `COPY`, and the word by which a pool sees that a session lives go with what is under way.
fn begins_statement(chunk: &[u8]) -> bool {
    matches!(chunk.first(), Some(b'Q' | b'B'))
}
