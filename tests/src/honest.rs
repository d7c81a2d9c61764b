//! A client that works all the time, while others misbehave.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use fluxar::{Code, ServerBuilder, Stats};
use tokio::task::JoinHandle;

use crate::net::{Net, eventually};
use crate::signal::Counter;
use crate::site::Site;
use crate::wire::Wire;

/// A server with an honest client, which must not notice anything of what the others do.
pub struct Field {
    /// The server.
    pub site: Site,
    working: JoinHandle<Stats>,
    calls: Counter,
    enough: Arc<AtomicBool>,
}

impl Field {
    /// A server with the handlers that most tests need, and its client at work.
    pub async fn open(net: Net, change: impl FnOnce(ServerBuilder) -> ServerBuilder) -> Self {
        let site = Site::with(net, change).await;
        let (calls, enough) = (Counter::new(), Arc::new(AtomicBool::new(false)));
        let client = site.client().await;
        let working = tokio::spawn({
            let (calls, enough) = (calls.clone(), enough.clone());
            async move {
                let mut number = 0u32;
                while !enough.load(Ordering::Relaxed) {
                    number += 1;
                    let text = "honest".repeat(number as usize % 50);
                    let echoed = client.call::<(u32, String)>("echo", &(number, &text)).await;
                    assert_eq!(echoed, Ok((number, text)));
                    calls.add();
                }
                client.stats()
            }
        });
        calls.reached(1).await;
        Self { site, working, calls, enough }
    }

    /// Sends `bytes` on a new connection, with the handshake done or not, and says what the server closes it for.
    ///
    /// # Panics
    ///
    /// Where it does not.
    pub async fn verdict(&self, shake_hands: bool, bytes: &[u8]) -> Code {
        let mut wire = Wire::connect(self.site.url()).await;
        if shake_hands {
            wire.shake_hands().await;
        }
        wire.send_bytes(bytes).await;
        wire.closed_for().await
    }

    /// Checks that the honest client still works, that another one can come, and that nobody else is left.
    ///
    /// # Panics
    ///
    /// Where something of that is not so.
    pub async fn unharmed(self) {
        self.calls.reached(self.calls.get() + 3).await;
        let late = self.site.client().await;
        assert_eq!(late.call::<u8>("echo", &7).await, Ok(7));
        drop(late);
        eventually("only the honest client is left", || self.site.handle().peers().len() == 1).await;
        self.enough.store(true, Ordering::Relaxed);
        let stats = self.working.await.expect("the honest client");
        assert_eq!((stats.dropped, stats.refused, stats.updates_dropped), (0, 0, 0), "{stats:?}");
        self.site.close().await;
    }
}
