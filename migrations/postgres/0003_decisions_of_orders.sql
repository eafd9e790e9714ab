-- Returns, confirmations and extensions by their order, for whoever asks what became of it: they have ids of their own.
-- Partial: an order that only takes stock writes nothing to it.

CREATE INDEX decisions_of_orders ON decisions (((detail::json ->> 'order_id') COLLATE "C")) WHERE kind IN (3, 4, 6);
