//! Test calls: somebody waits at the api for what their delivery comes to.

use cuewire::amqp::Publication;
use cuewire::amqp::publisher::ReplyTo;
use cuewire::delivery::Attempt;

use crate::deliver::Sender;

impl Sender {
    /// Answers a test call. Whoever called may have given up, so it is tried once.
    pub(crate) async fn answer(&self, reply: &ReplyTo, attempt: &Attempt) {
        let publication = Publication {
            exchange: String::new(),
            routing_key: reply.queue.clone(),
            message_id: attempt.delivery.to_string(),
            content_type: "application/json".to_owned(),
            headers: Default::default(),
            reply: Some(reply.clone()),
            body: serde_json::to_vec(attempt).unwrap_or_default().into(),
        };
        if let Err(error) = self.publisher.publish(publication).await {
            tracing::debug!(%error, "a test call's answer found nobody");
        }
    }
}
