-- How often a webhook may be sent to; null: as its format has it.
ALTER TABLE webhooks ADD COLUMN rate_limit_per_second integer;

-- A webhook's circuit breaker. While it is open nothing is sent but a probe now and then.
ALTER TABLE webhook_health
    -- null: it is closed
    ADD COLUMN opened_at timestamptz,
    -- those that failed since
    ADD COLUMN probes integer NOT NULL DEFAULT 0,
    -- whoever moves this time on may send the next one
    ADD COLUMN next_probe_at timestamptz;

-- Senders alone want to know, and of one webhook: a channel of its own, since `cuewire_changes` makes every
-- service read an organization anew.
CREATE FUNCTION announce_breaker() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    changed record := CASE WHEN TG_OP = 'DELETE' THEN OLD ELSE NEW END;
BEGIN
    PERFORM pg_notify('cuewire_breakers', changed.webhook_id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce_opening AFTER INSERT ON webhook_health
    FOR EACH ROW WHEN (NEW.opened_at IS NOT NULL) EXECUTE FUNCTION announce_breaker();
CREATE TRIGGER announce_change AFTER UPDATE ON webhook_health
    FOR EACH ROW WHEN ((OLD.opened_at, OLD.next_probe_at) IS DISTINCT FROM (NEW.opened_at, NEW.next_probe_at))
    EXECUTE FUNCTION announce_breaker();
CREATE TRIGGER announce_closing AFTER DELETE ON webhook_health
    FOR EACH ROW WHEN (OLD.opened_at IS NOT NULL) EXECUTE FUNCTION announce_breaker();

-- What Cuewire has to say of its own: written with the change that it tells of, published by the reaper as an
-- event, and gone when the broker has that.
CREATE TABLE notices (
    -- the event's id
    id              uuid PRIMARY KEY DEFAULT gen_random_uuid(),
    organization_id uuid NOT NULL,
    webhook_id      uuid NOT NULL,
    type            text NOT NULL,
    noted_at        timestamptz NOT NULL DEFAULT now(),
    -- JSON
    data            text NOT NULL,
    -- somebody is publishing it, and nobody else does until this time
    claimed_until   timestamptz
);
CREATE INDEX notices_by_time ON notices (noted_at);

-- Deliveries that came back later without having been sent: because the webhook was busy or its breaker open, or
-- because its rate limit was reached.
ALTER TABLE delivery_stats
    ADD COLUMN parked bigint NOT NULL DEFAULT 0,
    ADD COLUMN limited bigint NOT NULL DEFAULT 0;
