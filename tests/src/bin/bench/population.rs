//! Many webhooks: organizations of a hundred each, of which every one wants one channel of its organization's events.
//! They are put into the database in bulk, as a migration would do it, and announced afterwards.

use std::time::Duration;

use anyhow::Context;
use cuewire::ids::{OrganizationId, WebhookId};
use cuewire::signature::{Scheme, Secret};
use cuewire::vault::Vault;
use uuid::Uuid;

use crate::load::{CHANNELS, channel};
use crate::path::Audience;
use crate::receiver::{Manner, Receiver};
use crate::stack::Stack;

/// Organizations that are written at once, with all that belongs to them.
const PER_STATEMENT: usize = 100;
/// A router reads an organization in a millisecond or two.
const KNOWN_WITHIN: Duration = Duration::from_secs(120);

const ORGANIZATIONS: &str =
    "INSERT INTO organizations (id, name) SELECT id, 'bench' FROM unnest($1::uuid[]) AS id";
const WEBHOOKS: &str = r#"
    INSERT INTO webhooks (id, organization_id, name, url, format, event_types, filter, headers, signature,
                          max_in_flight, timeout_ms)
    SELECT id, organization_id, channel, $4, 'standard', '{feeds.*}', format('subject = "%s"', channel), '', 'v1',
           64, 15000
    FROM unnest($1::uuid[], $2::uuid[], $3::text[]) AS webhook (id, organization_id, channel)"#;
const SECRETS: &str = "
    INSERT INTO secrets (id, webhook_id, sealed)
    SELECT gen_random_uuid(), webhook_id, sealed FROM unnest($1::uuid[], $2::bytea[]) AS secret (webhook_id, sealed)";

/// So many webhooks, all of which send to one hook.
#[derive(Debug)]
pub(crate) struct Population {
    /// The organizations' ids.
    pub(crate) organizations: Vec<String>,
    /// Of each organization in turn its webhooks, a channel each.
    pub(crate) webhooks: Vec<WebhookId>,
    receiver: Receiver,
    vault: Vault,
    secret: String,
}

impl Population {
    /// Nobody yet.
    pub(crate) async fn new(stack: &Stack) -> anyhow::Result<Self> {
        Ok(Self {
            organizations: Vec::new(),
            webhooks: Vec::new(),
            receiver: Receiver::start([Manner::Quick]).await?,
            vault: stack.vault()?,
            secret: Secret::generate(Scheme::V1).to_string(),
        })
    }

    /// Adds what is missing of so many webhooks, and waits until the router knows them.
    pub(crate) async fn grow_to(&mut self, stack: &Stack, webhooks: usize) -> anyhow::Result<()> {
        let before = self.organizations.len();
        self.grow_unannounced(stack, webhooks).await?;
        let database = stack.database().await?;
        let announce = "SELECT announce(id) FROM unnest($1::text[]::uuid[]) AS id";
        database.query(announce, &[&&self.organizations[before..]]).await?;
        let known = async {
            while stack.webhooks_of_router().await? < self.webhooks.len() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(KNOWN_WITHIN, known).await.context("the router does not know all webhooks")?
    }

    /// The same, told to nobody.
    pub(crate) async fn grow_unannounced(&mut self, stack: &Stack, webhooks: usize) -> anyhow::Result<()> {
        let database = stack.database().await?;
        // Neither announcements nor look-ups of foreign keys, row by row.
        database.batch_execute("SET session_replication_role = replica").await?;
        while self.webhooks.len() < webhooks {
            let missing = (webhooks - self.webhooks.len()).div_ceil(CHANNELS);
            let organizations: Vec<Uuid> =
                (0..missing.min(PER_STATEMENT)).map(|_| OrganizationId::new().0).collect();
            database.execute(ORGANIZATIONS, &[&organizations]).await?;
            let owners: Vec<Uuid> =
                organizations.iter().flat_map(|organization| [*organization; CHANNELS]).collect();
            let channels: Vec<String> = (0..owners.len()).map(|number| channel(number % CHANNELS)).collect();
            let ids: Vec<WebhookId> = owners.iter().map(|_| WebhookId::new()).collect();
            let sealed: Vec<Vec<u8>> = ids.iter().map(|id| self.vault.seal(*id, &self.secret)).collect();
            let uuids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
            database.execute(WEBHOOKS, &[&uuids, &owners, &channels, &self.receiver.url(0)]).await?;
            database.execute(SECRETS, &[&uuids, &sealed]).await?;
            self.organizations.extend(organizations.iter().map(Uuid::to_string));
            self.webhooks.extend(ids);
        }
        database.batch_execute("ANALYZE organizations, webhooks, secrets").await?;
        Ok(())
    }

    /// All of them: each event goes to one webhook.
    pub(crate) fn everybody(&self) -> Audience<'_> {
        Audience { organizations: &self.organizations, receiver: &self.receiver, hooks: 1 }
    }

    /// The first organization's webhooks.
    pub(crate) fn the_first(&self) -> Audience<'_> {
        Audience { organizations: &self.organizations[..1], ..self.everybody() }
    }
}
