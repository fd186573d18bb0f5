//! Any ground, through the protocol of providers.

use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use ligand_kit::{Doing, Done, Ground, Name};
use ligand_server::backend::provider::{Address, Provider, serve};
use ligand_server::backend::{Backend, Key, Pushes};
use tokio_util::sync::CancellationToken;

const TOKEN: &str = "a-token-of-the-kit";

/// A provider, and what it serves. It runs beside the scenario, as another program would.
pub(super) struct Served<G> {
    own: Door,
    strangers: Option<Door>,
    // After the doors: what they serve is taken away last.
    below: G,
}

impl<G: Ground> Served<G> {
    pub(super) fn new(below: G) -> Self {
        let own = Door::open(|pushes| below.open(pushes).unwrap());
        let strangers = below.stranger().ok().map(|stranger| Door::open(|_| stranger));
        Self { own, strangers, below }
    }
}

impl<G: Ground> Ground for Served<G> {
    fn name(&self) -> Name {
        self.below.name()
    }

    fn open(&self, pushes: Pushes) -> Done<Arc<dyn Backend>> {
        Ok(Arc::new(Provider::new(self.own.address(), pushes)?))
    }

    fn stranger(&self) -> Done<Arc<dyn Backend>> {
        let address = self.strangers.as_ref().unwrap().address();
        Ok(Arc::new(Provider::new(address, Pushes::channel().0)?))
    }

    fn plays(&self) -> bool {
        self.below.plays()
    }

    fn act(&self, key: Key, doing: Doing) -> BoxFuture<'_, Done> {
        self.below.act(key, doing)
    }

    fn kill<'a>(&'a self, backend: &'a dyn Backend, key: Key) -> BoxFuture<'a, Done> {
        self.below.kill(backend, key)
    }

    fn throttle(&self) -> Done {
        self.below.throttle()
    }

    fn restart_engine(&self) -> Done {
        self.below.restart_engine()
    }

    fn lose_reply(&self) {
        self.below.lose_reply();
    }

    fn door(&self) -> BoxFuture<'_, Done<(u16, u16)>> {
        Box::pin(async {
            let provider = Provider::new(self.own.address(), Pushes::channel().0)?;
            Ok(provider.door().await?)
        })
    }
}

/// A provider that serves until it is dropped.
struct Door {
    url: String,
    stop: CancellationToken,
    serving: Option<JoinHandle<()>>,
}

impl Door {
    fn open(backend: impl FnOnce(Pushes) -> Arc<dyn Backend>) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let asked = stop.clone();
        let (pushes, pushed) = Pushes::channel();
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let backend = {
            let _within = runtime.enter();
            backend(pushes)
        };
        let serving = std::thread::spawn(move || {
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).unwrap();
                serve::serve(listener, backend, pushed, TOKEN, asked).await.unwrap();
            });
            runtime.shutdown_timeout(Duration::from_secs(5));
        });
        Self { url, stop, serving: Some(serving) }
    }

    fn address(&self) -> Address {
        Address::new(&self.url, TOKEN).unwrap()
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.stop.cancel();
        let _ = self.serving.take().map(JoinHandle::join);
    }
}
