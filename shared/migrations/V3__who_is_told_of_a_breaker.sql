-- Whether the organization was told by `webhook.failing` that the breaker opened: of what it was not told it hears no
-- end either. Those that were opened before this column was there were told, but for the few that the delivery of an
-- event of Cuewire's own opened.
ALTER TABLE webhook_health ADD COLUMN is_told boolean NOT NULL DEFAULT true;
