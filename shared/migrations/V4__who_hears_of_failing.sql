-- Senders hear that a webhook has begun to fail, so that whoever sees it recover knows that there is a row to delete,
-- and nobody has to ask. Of one that opens a breaker they hear already.
CREATE FUNCTION announce_failing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_notify('cuewire_failing', NEW.webhook_id::text);
    RETURN NULL;
END $$;
CREATE TRIGGER announce_failing AFTER INSERT ON webhook_health
    FOR EACH ROW WHEN (NEW.opened_at IS NULL) EXECUTE FUNCTION announce_failing();
