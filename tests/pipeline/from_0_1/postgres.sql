-- The rows of a ledger as version 0.1 wrote them; its tables are those of migrations/postgres/0001_ledger.sql. NAME stands for
-- the names of the topics.
CREATE TABLE _sqlx_migrations (
    version bigint PRIMARY KEY,
    description text NOT NULL,
    installed_on timestamp with time zone DEFAULT now() NOT NULL,
    success boolean NOT NULL,
    checksum bytea NOT NULL,
    execution_time bigint NOT NULL
);
INSERT INTO _sqlx_migrations VALUES (1, 'ledger', '2026-11-27 10:44:31.306773+00', true, '\x08de89d4b8e566acda9e712dd1428ac6732d4d5d6fa3aa2cca56021daf0e3be053ba1b72ba53fc4945e1e55a213fd870', 59055863);
INSERT INTO decisions VALUES (100000, '2026-11-27 10:44:31.396252+00', NULL, NULL, 10, true, 'set-c3ab541ff430bb1955860c16d06fe73c', NULL, '\x08968548619bf89161a8e0ac3248e8e5', '{"lines":[{"sku":"MUG","quantity":100,"balance":100,"version":1}]}');
INSERT INTO decisions VALUES (200000, '2026-11-27 10:44:31.42896+00', NULL, NULL, 10, true, 'set-9ac4b400353b7982a358e1e45b5147f9', NULL, '\x0ef42db9acf46650c0dee9d0a4f3c664', '{"lines":[{"sku":"HAT","quantity":4,"balance":4,"version":1}]}');
INSERT INTO decisions VALUES (300000, '2026-11-27 10:44:31.781363+00', 0, 1, 10, false, 'a-2', 'NAME.adjustments', '\x8c81ead67d0186dfb7ce26cac6c79e27', '{"reasons":[{"reason":"insufficient_stock","sku":"HAT","requested":9,"available":4}]}');
INSERT INTO decisions VALUES (300001, '2026-11-27 10:44:31.781363+00', 0, 0, 10, true, 'a-1', 'NAME.adjustments', '\x841e2baba273206f3d2530229b9a0d08', '{"lines":[{"sku":"PEN","quantity":20,"balance":20,"version":1}]}');
INSERT INTO decisions VALUES (400000, '2026-11-27 10:44:37.528359+00', 0, 0, 1, true, 'o-1', 'NAME.orders', '\x37bbc67ab441c492ccadd4ff131f67f4', '{"lines":[{"sku":"HAT","quantity":1,"balance":3},{"sku":"MUG","quantity":3,"balance":97}]}');
INSERT INTO decisions VALUES (500000, '2026-11-27 10:44:37.546586+00', 1, 0, 3, true, 'r-1', 'NAME.orders', '\xa7745f5486c5e0ca817993240c8a443e', '{"order_id":"o-1","returned":[{"sku":"MUG","quantity":1,"balance":98}]}');
INSERT INTO decisions VALUES (600000, '2026-11-27 10:44:37.561966+00', 2, 0, 2, true, 'o-2', 'NAME.orders', '\x58fbbbbcb5728e488eea7ebe6ec428bc', '{"returned":[]}');
INSERT INTO decisions VALUES (700000, '2026-11-27 10:44:37.576286+00', 3, 0, 1, false, 'o-2', 'NAME.orders', '\xd02f802063b53ed50bd7d2f4e93aa928', '{"reasons":[{"reason":"order_cancelled"}]}');
INSERT INTO decisions VALUES (800000, '2026-11-27 10:44:37.583648+00', 0, 1, 1, true, 'o-3', 'NAME.orders', '\xf7b59452c98ef307e5034e676dae215e', '{"lines":[{"sku":"MUG","quantity":4,"balance":94}],"expires_at":"2026-11-27T10:44:45.583648Z"}');
INSERT INTO decisions VALUES (900000, '2026-11-27 10:44:37.595863+00', 1, 1, 1, true, 'o-4', 'NAME.orders', '\xb6501ebe29beef1d53f973a523c6e3c2', '{"lines":[{"sku":"MUG","quantity":2,"balance":92}],"expires_at":"2026-11-27T10:44:45.595863Z"}');
INSERT INTO decisions VALUES (1000000, '2026-11-27 10:44:37.606375+00', 2, 1, 4, true, 'o-4', 'NAME.orders', '\x49ce3150a0b11c509e7ca1cc3d72871d', '{"order_id":"o-4","lines":[{"sku":"MUG","quantity":1}],"returned":[{"sku":"MUG","quantity":1,"balance":93}]}');
INSERT INTO decisions VALUES (1400000, '2026-11-27 10:44:37.645281+00', 3, 1, 1, true, 'o-5', 'NAME.orders', '\x13c41155d16d40e54163580e31b6d325', '{"lines":[{"sku":"HAT","quantity":3,"balance":0},{"sku":"PEN","quantity":1,"balance":19}],"short":[{"reason":"insufficient_stock","sku":"HAT","requested":9,"available":3}]}');
INSERT INTO decisions VALUES (1500000, '2026-11-27 10:44:37.653661+00', 4, 1, 1, false, 'o-6', 'NAME.orders', '\xaa9eb6b5fb18665d8b7abde6fdb77be4', '{"reasons":[{"reason":"insufficient_stock","sku":"HAT","requested":1,"available":0},{"reason":"unknown_sku","sku":"NONE","requested":1}]}');
INSERT INTO decisions VALUES (1700000, '2026-11-27 10:44:37.683833+00', 6, 0, 1, true, 'o-7', 'NAME.orders', '\xe0848de58f603d5922386fd972871114', '{"lines":[{"sku":"PEN","quantity":2,"balance":17}]}');
INSERT INTO decisions VALUES (1800000, '2026-11-27 10:44:37.695487+00', 7, 0, 3, false, 'r-2', 'NAME.orders', '\x3f24692f9151a0f7ddbd62de2cb5f732', '{"order_id":"o-8","reasons":[{"reason":"order_not_found"}]}');
INSERT INTO decisions VALUES (1900000, '2026-11-27 10:44:40.527677+00', NULL, NULL, 10, true, 'set-50fe48c98bd39f14d7c3efd6345a2be3', NULL, '\xaf044decf9a92e78ef6a504e55b213c6', '{"lines":[{"sku":"CAP","quantity":7,"balance":7,"version":1}]}');
INSERT INTO holds VALUES ('2026-11-27 10:44:45.583648+00', NULL, 1, 'NAME.orders', 'o-3');
INSERT INTO levels VALUES ('MUG', '', 93, 6, 0, NULL);
INSERT INTO levels VALUES ('HAT', '', 0, 3, 0, NULL);
INSERT INTO levels VALUES ('PEN', '', 17, 3, 0, NULL);
INSERT INTO levels VALUES ('CAP', '', 7, 1, 0, NULL);
INSERT INTO movements VALUES (1, 100, 100, 100000, NULL, NULL, 10, 'MUG', '', 'set-c3ab541ff430bb1955860c16d06fe73c');
INSERT INTO movements VALUES (1, 4, 4, 200000, NULL, NULL, 10, 'HAT', '', 'set-9ac4b400353b7982a358e1e45b5147f9');
INSERT INTO movements VALUES (1, 20, 20, 300001, 0, 0, 10, 'PEN', '', 'a-1');
INSERT INTO movements VALUES (2, -1, 3, 400000, 0, 0, 1, 'HAT', '', 'o-1');
INSERT INTO movements VALUES (2, -3, 97, 400000, 0, 0, 1, 'MUG', '', 'o-1');
INSERT INTO movements VALUES (3, 1, 98, 500000, 1, 0, 3, 'MUG', '', 'r-1');
INSERT INTO movements VALUES (4, -4, 94, 800000, 0, 1, 1, 'MUG', '', 'o-3');
INSERT INTO movements VALUES (5, -2, 92, 900000, 1, 1, 1, 'MUG', '', 'o-4');
INSERT INTO movements VALUES (6, 1, 93, 1000000, 2, 1, 4, 'MUG', '', 'o-4');
INSERT INTO movements VALUES (3, -3, 0, 1400000, 3, 1, 1, 'HAT', '', 'o-5');
INSERT INTO movements VALUES (2, -1, 19, 1400000, 3, 1, 1, 'PEN', '', 'o-5');
INSERT INTO movements VALUES (3, -2, 17, 1700000, 6, 0, 1, 'PEN', '', 'o-7');
INSERT INTO movements VALUES (1, 7, 7, 1900000, NULL, NULL, 10, 'CAP', '', 'set-50fe48c98bd39f14d7c3efd6345a2be3');
INSERT INTO order_lines VALUES ('o-1', 'MUG', '', 3, 1);
INSERT INTO order_lines VALUES ('o-4', 'MUG', '', 2, 1);
INSERT INTO positions VALUES ('NAME.adjustments', 1, 1);
INSERT INTO positions VALUES ('NAME.adjustments', 0, 1);
INSERT INTO positions VALUES ('NAME.orders', 1, 6);
INSERT INTO positions VALUES ('NAME.orders', 0, 8);
INSERT INTO unannounced_levels VALUES ('CAP', '');
SELECT pg_catalog.setval('ledger_seq', 1900000, true);
