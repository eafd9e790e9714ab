-- As migrations/postgres/0003_decisions_of_orders.sql says.

CREATE INDEX decisions_of_orders ON decisions (detail ->> '$.order_id') WHERE kind IN (3, 4, 6);
