//! Notices: what Cuewire has to say of its own (a webhook keeps failing, was disabled, is well again; a delivery
//! has failed for good) is published as an event, which the organization's webhooks may want.
//!
//! A notice is written by the statement that changes what it tells of, and forgotten when the broker has its event:
//! so none is lost, and one that is published twice after a crash is a repeat, which the router drops.

use std::time::Duration;

use cuewire::amqp::Publisher;
use cuewire::db::notices::Notice;
use cuewire::db::{Database, DbError};
use cuewire::delivery::rfc3339;
use cuewire::event::{AttributeValue, Data, Event, EventType, OWN_SOURCE};
use cuewire::message::EventMessage;
use cuewire::shutdown::Shutdown;
use futures_util::future::join_all;

use crate::metrics::Metrics;

const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Above the time that a publish may take (30 s without a confirm). While the broker takes nothing it takes longer,
/// and another replica may publish the same: a repeat, which the router drops.
const LEASE: Duration = Duration::from_secs(90);
/// Published together, and confirmed before the next are read.
const AT_A_TIME: i64 = 100;

/// Publishes notices until the service stops; what is claimed then is published, and forgotten.
pub(crate) async fn keep_publishing(
    database: &Database,
    publisher: &Publisher,
    metrics: &Metrics,
    shutdown: &Shutdown,
) {
    while !shutdown.is_stopped() {
        match shutdown.finish(publish(database, publisher, metrics)).await {
            // There may be more.
            Some(Ok(published)) if published == AT_A_TIME as usize => continue,
            Some(Ok(_)) | None => {}
            Some(Err(error)) => tracing::warn!(%error, "notices wait for the database"),
        }
        shutdown.run_until_stopped(tokio::time::sleep(LOOK_EVERY)).await;
    }
}

/// Claims, publishes, awaits the confirms, and forgets what was published. Answers how many that were.
async fn publish(database: &Database, publisher: &Publisher, metrics: &Metrics) -> Result<usize, DbError> {
    let notices = database.claim_notices(LEASE, AT_A_TIME).await?;
    let sent = join_all(notices.iter().map(|notice| send(publisher, notice))).await;
    let (published, left): (Vec<_>, Vec<_>) = notices.iter().zip(sent).partition(|(_, sent)| *sent);
    let ids = |notices: &[(&Notice, bool)]| notices.iter().map(|(notice, _)| notice.id).collect::<Vec<_>>();
    if !published.is_empty() {
        database.forget_notices(&ids(&published)).await?;
        metrics.notices.inc_by(published.len() as u64);
    }
    if !left.is_empty() {
        tracing::warn!(notices = left.len(), "the broker does not take notices; they are published later");
        database.release_notices(&ids(&left)).await?;
    }
    Ok(published.len())
}

/// Whether it is with the broker.
async fn send(publisher: &Publisher, notice: &Notice) -> bool {
    let event = match event(notice) {
        Ok(event) => event,
        Err(error) => {
            tracing::error!(notice = %notice.id, error, "a notice that cannot be published is dropped");
            return true;
        }
    };
    match publisher.publish(EventMessage::publication(&event, false)).await {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(notice = %notice.id, %error, "a notice is published later");
            false
        }
    }
}

fn event(notice: &Notice) -> Result<Event, String> {
    let organization = AttributeValue::Text(notice.organization.to_string());
    Ok(Event {
        id: notice.id.to_string(),
        source: OWN_SOURCE.to_owned(),
        event_type: EventType::parse(&notice.event_type)?,
        subject: Some(notice.webhook.to_string()),
        time: Some(rfc3339(notice.noted_at)),
        datacontenttype: None,
        dataschema: None,
        extensions: vec![("organization".to_owned(), organization)],
        data: Data::Json(notice.data.clone().into()),
    })
}

#[cfg(test)]
mod tests {
    use cuewire::catalogue;
    use cuewire::ids::{OrganizationId, WebhookId};
    use time::macros::datetime;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_notice_becomes_an_event_that_the_catalogue_lists() {
        let notice = Notice {
            id: Uuid::now_v7(),
            organization: OrganizationId::new(),
            webhook: WebhookId::new(),
            event_type: "webhook.disabled".to_owned(),
            noted_at: datetime!(2026-01-31 09:30:00 UTC),
            data: r#"{"url":"https://example.com/"}"#.to_owned(),
        };
        let event = event(&notice).unwrap();
        assert!(catalogue::find(event.event_type.as_str()).is_some());
        assert_eq!(event.extension("organization"), Some(notice.organization.to_string().as_str()));
        assert_eq!(Event::from_json(&event.to_json()).unwrap(), event);
    }
}
