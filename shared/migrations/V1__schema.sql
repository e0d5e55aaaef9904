-- Configuration: who may do what, and who wants which events. Small, read into memory by the services.

CREATE TABLE organizations (
    id          uuid PRIMARY KEY,
    name        text NOT NULL,
    -- the tenant's name in the upstream platform; an event's `organization` may be either
    external_id text UNIQUE,
    created_at  timestamptz NOT NULL DEFAULT now(),
    updated_at  timestamptz NOT NULL DEFAULT now()
);

CREATE TABLE api_keys (
    id              uuid PRIMARY KEY,
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name            text NOT NULL,
    role            text NOT NULL CHECK (role IN ('admin', 'editor', 'viewer')),
    key_sha256      bytea NOT NULL UNIQUE,
    created_at      timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX api_keys_by_organization ON api_keys (organization_id, id);

CREATE TABLE webhooks (
    id                uuid PRIMARY KEY,
    -- for platforms whose webhooks are numbered
    number            bigint GENERATED ALWAYS AS IDENTITY UNIQUE,
    organization_id   uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    name              text NOT NULL,
    description       text,
    url               text NOT NULL,
    enabled           boolean NOT NULL DEFAULT true,
    disabled_reason   text,
    format            text NOT NULL,
    -- exact types and patterns; empty: every type but Cuewire's own
    event_types       text[] NOT NULL DEFAULT '{}',
    filter            text,
    -- sealed as secrets are, since tokens are among them; empty: none
    headers           bytea NOT NULL,
    signature         text NOT NULL CHECK (signature IN ('v1', 'v1a')),
    max_in_flight     integer NOT NULL,
    timeout_ms        integer NOT NULL,
    -- milliseconds; null: the format's own schedule
    retry_schedule_ms bigint[],
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX webhooks_by_organization ON webhooks (organization_id, created_at, id);

CREATE TABLE secrets (
    id         uuid PRIMARY KEY,
    webhook_id uuid NOT NULL REFERENCES webhooks ON DELETE CASCADE,
    -- XChaCha20-Poly1305 under the operator's key, which never comes here
    sealed     bytea NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    -- null: valid until it is replaced
    expires_at timestamptz
);
CREATE INDEX secrets_by_webhook ON secrets (webhook_id, created_at);

-- How a webhook has fared lately; written on transitions only.
CREATE TABLE webhook_health (
    webhook_id      uuid PRIMARY KEY REFERENCES webhooks ON DELETE CASCADE,
    first_failed_at timestamptz NOT NULL,
    last_error      text NOT NULL
);

-- Event types of an organization's own, and those of the catalogue whose schemas it has in force.
CREATE TABLE event_types (
    organization_id uuid NOT NULL REFERENCES organizations ON DELETE CASCADE,
    type            text NOT NULL,
    description     text,
    -- JSON as it was sent; null: the catalogue's, if that lists the type
    schema          text,
    sample          text,
    -- whether events that do not fit are refused
    enforced        boolean NOT NULL DEFAULT false,
    created_at      timestamptz NOT NULL DEFAULT now(),
    updated_at      timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (organization_id, type)
);

-- What all services must agree on, recorded by the first of them.
CREATE TABLE settings (
    name  text PRIMARY KEY,
    value text NOT NULL
);

-- Every change of configuration is announced as it commits, and kept for those who were not listening.
CREATE TABLE changes (
    seq             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    organization_id uuid NOT NULL,
    changed_at      timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX changes_by_time ON changes (changed_at);

CREATE FUNCTION announce(organization uuid) RETURNS void LANGUAGE sql AS $$
    INSERT INTO changes (organization_id) VALUES (organization);
    SELECT pg_notify('cuewire_changes', organization::text);
$$;

CREATE FUNCTION announce_row() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM announce(CASE
        WHEN TG_TABLE_NAME = 'organizations' THEN (to_jsonb(changed) ->> 'id')::uuid
        WHEN TG_TABLE_NAME = 'secrets' THEN
            (SELECT organization_id FROM webhooks WHERE id = (to_jsonb(changed) ->> 'webhook_id')::uuid)
        ELSE (to_jsonb(changed) ->> 'organization_id')::uuid
    END);
    RETURN NULL;
END $$;

CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON organizations
    FOR EACH ROW EXECUTE FUNCTION announce_row();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION announce_row();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON webhooks
    FOR EACH ROW EXECUTE FUNCTION announce_row();
CREATE TRIGGER announce AFTER INSERT OR UPDATE OR DELETE ON event_types
    FOR EACH ROW EXECUTE FUNCTION announce_row();
-- A webhook's secrets go with it, announced by the webhook's own row.
CREATE TRIGGER announce AFTER INSERT OR UPDATE ON secrets
    FOR EACH ROW EXECUTE FUNCTION announce_row();
CREATE TRIGGER announce_removal AFTER DELETE ON secrets
    FOR EACH ROW WHEN (pg_trigger_depth() = 0) EXECUTE FUNCTION announce_row();
-- A webhook's health is announced to nobody: a failing one changes it often. A sender that did not see it fail
-- asks now and then.

-- The event log and the account of every attempt: written in batches, never updated, partitioned by the
-- day (UTC), dropped by the day. Partitions are made by the services, with their indexes.

CREATE TABLE events (
    -- the day on which the router logged the event
    day             date NOT NULL,
    organization_id uuid NOT NULL,
    source          text NOT NULL,
    id              text NOT NULL,
    type            text NOT NULL,
    category        text NOT NULL,
    subject         text,
    received_at     timestamptz NOT NULL,
    -- structured JSON as it travelled: bytes, since jsonb would reorder its keys
    payload         bytea NOT NULL,
    -- the webhooks it was fanned out to
    webhooks        uuid[] NOT NULL,
    -- the id before the source: the API finds an event by its id alone
    PRIMARY KEY (organization_id, id, source, day)
) PARTITION BY RANGE (day);

CREATE TABLE attempts (
    -- the day on which the attempt was first due: the same for every copy of the work
    day             date NOT NULL,
    delivery_id     uuid NOT NULL,
    round           uuid NOT NULL,
    number          integer NOT NULL,
    organization_id uuid NOT NULL,
    webhook_id      uuid NOT NULL,
    event_source    text NOT NULL,
    event_id        text NOT NULL,
    event_type      text NOT NULL,
    started_at      timestamptz NOT NULL,
    duration_us     bigint NOT NULL,
    -- what the delivery is after this attempt
    state           text NOT NULL CHECK (state IN ('delivered', 'retrying', 'dead')),
    next_attempt_at timestamptz,
    -- why it is dead
    reason          text,
    -- null: there was no answer
    status          smallint,
    -- what went wrong, in a sentence
    error           text,
    -- `name: value` lines, and at most 16 KiB of the body, as they came
    response_headers bytea,
    response_body    bytea,
    PRIMARY KEY (delivery_id, round, number, day)
) PARTITION BY RANGE (day);

CREATE TABLE delivery_stats (
    day         date NOT NULL,
    webhook_id  uuid NOT NULL,
    minute      timestamptz NOT NULL,
    delivered   bigint NOT NULL,
    failed      bigint NOT NULL,
    dead        bigint NOT NULL,
    duration_us bigint NOT NULL,
    PRIMARY KEY (webhook_id, minute, day)
) PARTITION BY RANGE (day);

CREATE TABLE dead_letters (
    id              uuid PRIMARY KEY,
    reason          text NOT NULL,
    -- what was wrong, in a sentence
    detail          text NOT NULL,
    -- null: it could not be told whose it is, and the operator has it
    organization_id uuid,
    category        text NOT NULL,
    event_source    text,
    event_id        text,
    event_type      text,
    webhook_id      uuid,
    delivery_id     uuid,
    round           uuid,
    -- JSON: number, started_at, duration_ms, status, error
    last_attempt    text,
    -- the message whole, as it was received: an event in structured JSON, unless it was not understood
    payload         bytea NOT NULL,
    content_type    text,
    -- {name: value} of the message's own headers, as far as they can be told as JSON
    message_headers jsonb NOT NULL DEFAULT '{}',
    -- where the message was first published to
    exchange        text NOT NULL,
    routing_key     text NOT NULL,
    created_at      timestamptz NOT NULL,
    redriven_at     timestamptz,
    -- somebody is sending it again, and nobody else does until this time
    claimed_until   timestamptz,
    -- the reaper sends it again by itself at this time (a message that came by the delivery limit)
    redrive_at      timestamptz
);
CREATE INDEX dead_letters_by_organization ON dead_letters (organization_id, created_at, id);
CREATE INDEX dead_letters_by_time ON dead_letters (created_at, id);
CREATE INDEX dead_letters_by_delivery ON dead_letters (delivery_id);
CREATE INDEX dead_letters_to_redrive ON dead_letters (redrive_at) WHERE redrive_at IS NOT NULL;

-- Deliveries that were sent again by hand, without a dead letter: the latest time of each.
CREATE TABLE retries (
    delivery_id uuid PRIMARY KEY,
    round       uuid NOT NULL,
    -- under way at most until then, and nobody else sends the same round again before
    until       timestamptz NOT NULL
);
CREATE INDEX retries_by_time ON retries (until);
