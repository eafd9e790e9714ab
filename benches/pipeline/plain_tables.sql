-- What a shop has without this verifier: a guarded counter for each SKU and a row for each deduction.

CREATE TABLE inventory (
    sku       text   COLLATE "C" PRIMARY KEY,
    available bigint NOT NULL CHECK (available >= 0)
) WITH (fillfactor = 50); -- room for HOT updates, as the ledger has it

CREATE TABLE flow (
    order_id   text        COLLATE "C" NOT NULL,
    sku        text        COLLATE "C" NOT NULL,
    quantity   bigint      NOT NULL,
    created_at timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (order_id, sku)
);

-- For the procedure: a batch that comes twice must not deduct twice.
CREATE TABLE decided (
    order_id text    COLLATE "C" PRIMARY KEY,
    accepted boolean NOT NULL
);

CREATE FUNCTION take_batch(order_ids text[], skus text[], quantities bigint[])
RETURNS TABLE (decided_id text, decided_accepted boolean) LANGUAGE plpgsql AS $$
DECLARE
    line     record;
    current  text;
    repeated boolean;
    rejected boolean;
BEGIN
    -- An order's lines follow each other.
    FOR line IN SELECT * FROM unnest(order_ids, skus, quantities) AS t (order_id, sku, quantity) LOOP
        IF line.order_id IS DISTINCT FROM current THEN
            current := line.order_id;
            rejected := false;
            INSERT INTO decided (order_id, accepted) VALUES (current, true) ON CONFLICT DO NOTHING;
            repeated := NOT FOUND;
        END IF;
        CONTINUE WHEN repeated OR rejected;
        UPDATE inventory SET available = available - line.quantity
        WHERE sku = line.sku AND available >= line.quantity;
        IF FOUND THEN
            INSERT INTO flow (order_id, sku, quantity) VALUES (current, line.sku, line.quantity);
        ELSE
            rejected := true;
            UPDATE inventory SET available = available + taken.quantity
            FROM flow AS taken WHERE taken.order_id = current AND inventory.sku = taken.sku;
            DELETE FROM flow WHERE order_id = current;
            UPDATE decided SET accepted = false WHERE order_id = current;
        END IF;
    END LOOP;
    RETURN QUERY SELECT order_id, accepted FROM decided WHERE order_id = ANY (order_ids);
END
$$;
