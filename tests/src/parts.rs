//! What services publish and consume with, run by a test itself.

use cuewire::amqp::topology::Topology;
use cuewire::amqp::{Broker, Consumer, Publisher, Source};
use cuewire::health::Health;
use cuewire::message::EventMessage;
use cuewire::shutdown::Shutdown;
use prometheus::Registry;

/// A service without anything of its own. It stops when this is dropped.
#[derive(Debug)]
pub struct Parts {
    /// Where it connects to.
    pub broker: Broker,
    /// Tells it to stop.
    pub shutdown: Shutdown,
    health: Health,
}

impl Parts {
    /// On the broker of this URL.
    #[must_use]
    pub fn on(url: &str) -> Self {
        let broker = Broker::new(url.to_owned(), Topology::default(), "test");
        Self { broker, shutdown: Shutdown::new(), health: Health::new(&Registry::new()) }
    }

    /// A publisher, which goes on until all its handles are gone.
    #[must_use]
    pub fn publisher(&self) -> Publisher {
        Publisher::start(self.broker.clone(), self.health.component("publisher"), self.shutdown.clone())
    }

    /// A consumer of a queue of events.
    #[must_use]
    pub fn consumer(&self, queue: &str, prefetch: u16) -> Consumer<EventMessage> {
        let source = Source { queue: queue.to_owned(), prefetch, number: 0 };
        let component = self.health.component("consumer");
        let sources = move |_: &Topology| vec![source.clone()];
        Consumer::start(self.broker.clone(), sources, self.publisher(), component, self.shutdown.clone())
    }

    /// Why a part is not there; none when it is.
    #[must_use]
    pub fn missing(&self, part: &str) -> Option<String> {
        self.health.missing().into_iter().find_map(|(name, reason)| (name == part).then_some(reason))
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.shutdown.stop();
    }
}
