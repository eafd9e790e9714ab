-- The rows of a ledger as version 0.1 wrote them; its tables are those of migrations/sqlite/0001_ledger.sql. NAME stands for
-- the names of the topics.
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'ledger','2026-11-27 10:44:43',1,X'E5C2174779E227CA3A14F0A5E6D3C7A1ABEE13E12E2695947BCB5FB29F7E59E624F1ED37F3C9F7C0A5E9BF982201025F',962462);
INSERT INTO "decisions" VALUES(1,'set-ded5ffda304ad19b56235b0245655ed8',10,1,X'08968548619BF89161A8E0AC3248E8E5','{"lines":[{"sku":"MUG","quantity":100,"balance":100,"version":1}]}',NULL,NULL,NULL,1795776283536319);
INSERT INTO "decisions" VALUES(2,'set-52b63c0c39be8d5778b4ac75571ffe3f',10,1,X'0EF42DB9ACF46650C0DEE9D0A4F3C664','{"lines":[{"sku":"HAT","quantity":4,"balance":4,"version":1}]}',NULL,NULL,NULL,1795776283546540);
INSERT INTO "decisions" VALUES(3,'a-2',10,0,X'8C81EAD67D0186DFB7CE26CAC6C79E27','{"reasons":[{"reason":"insufficient_stock","sku":"HAT","requested":9,"available":4}]}','NAME.adjustments',1,0,1795776284274040);
INSERT INTO "decisions" VALUES(4,'a-1',10,1,X'841E2BABA273206F3D2530229B9A0D08','{"lines":[{"sku":"PEN","quantity":20,"balance":20,"version":1}]}','NAME.adjustments',0,0,1795776284274040);
INSERT INTO "decisions" VALUES(5,'o-1',1,1,X'37BBC67AB441C492CCADD4FF131F67F4','{"lines":[{"sku":"HAT","quantity":1,"balance":3},{"sku":"MUG","quantity":3,"balance":97}]}','NAME.orders',0,0,1795776289606046);
INSERT INTO "decisions" VALUES(6,'r-1',3,1,X'A7745F5486C5E0CA817993240C8A443E','{"order_id":"o-1","returned":[{"sku":"MUG","quantity":1,"balance":98}]}','NAME.orders',0,1,1795776289606046);
INSERT INTO "decisions" VALUES(7,'o-2',2,1,X'58FBBBBCB5728E488EEA7EBE6EC428BC','{"returned":[]}','NAME.orders',0,2,1795776289623092);
INSERT INTO "decisions" VALUES(8,'o-2',1,0,X'D02F802063B53ED50BD7D2F4E93AA928','{"reasons":[{"reason":"order_cancelled"}]}','NAME.orders',0,3,1795776289636715);
INSERT INTO "decisions" VALUES(9,'o-3',1,1,X'F7B59452C98EF307E5034E676DAE215E','{"lines":[{"sku":"MUG","quantity":4,"balance":94}],"expires_at":"2026-11-27T10:44:57.651122Z"}','NAME.orders',1,0,1795776289651122);
INSERT INTO "decisions" VALUES(10,'o-4',1,1,X'B6501EBE29BEEF1D53F973A523C6E3C2','{"lines":[{"sku":"MUG","quantity":2,"balance":92}],"expires_at":"2026-11-27T10:44:57.674002Z"}','NAME.orders',1,1,1795776289674002);
INSERT INTO "decisions" VALUES(11,'o-4',4,1,X'49CE3150A0B11C509E7CA1CC3D72871D','{"order_id":"o-4","lines":[{"sku":"MUG","quantity":1}],"returned":[{"sku":"MUG","quantity":1,"balance":93}]}','NAME.orders',1,2,1795776289691580);
INSERT INTO "decisions" VALUES(12,'o-5',1,1,X'13C41155D16D40E54163580E31B6D325','{"lines":[{"sku":"HAT","quantity":3,"balance":0},{"sku":"PEN","quantity":1,"balance":19}],"short":[{"reason":"insufficient_stock","sku":"HAT","requested":9,"available":3}]}','NAME.orders',1,3,1795776289716606);
INSERT INTO "decisions" VALUES(13,'o-6',1,0,X'AA9EB6B5FB18665D8B7ABDE6FDB77BE4','{"reasons":[{"reason":"insufficient_stock","sku":"HAT","requested":1,"available":0},{"reason":"unknown_sku","sku":"NONE","requested":1}]}','NAME.orders',1,4,1795776289744460);
INSERT INTO "decisions" VALUES(14,'o-7',1,1,X'E0848DE58F603D5922386FD972871114','{"lines":[{"sku":"PEN","quantity":2,"balance":17}]}','NAME.orders',0,6,1795776289783367);
INSERT INTO "decisions" VALUES(15,'r-2',3,0,X'3F24692F9151A0F7DDBD62DE2CB5F732','{"order_id":"o-8","reasons":[{"reason":"order_not_found"}]}','NAME.orders',0,7,1795776289797142);
INSERT INTO "decisions" VALUES(16,'set-5d5116e1dbb43a77d5a9efb0992e503c',10,1,X'AF044DECF9A92E78EF6A504E55B213C6','{"lines":[{"sku":"CAP","quantity":7,"balance":7,"version":1}]}',NULL,NULL,NULL,1795776292560816);
INSERT INTO "holds" VALUES('o-3',1795776297651122,NULL,'NAME.orders',1);
INSERT INTO "levels" VALUES('CAP','',7,1,0,NULL);
INSERT INTO "levels" VALUES('HAT','',0,3,0,NULL);
INSERT INTO "levels" VALUES('MUG','',93,6,0,NULL);
INSERT INTO "levels" VALUES('PEN','',17,3,0,NULL);
INSERT INTO "movements" VALUES(1,'MUG','',1,100,100,10,'set-ded5ffda304ad19b56235b0245655ed8',NULL,NULL);
INSERT INTO "movements" VALUES(2,'HAT','',1,4,4,10,'set-52b63c0c39be8d5778b4ac75571ffe3f',NULL,NULL);
INSERT INTO "movements" VALUES(4,'PEN','',1,20,20,10,'a-1',0,0);
INSERT INTO "movements" VALUES(5,'HAT','',2,-1,3,1,'o-1',0,0);
INSERT INTO "movements" VALUES(5,'MUG','',2,-3,97,1,'o-1',0,0);
INSERT INTO "movements" VALUES(6,'MUG','',3,1,98,3,'r-1',0,1);
INSERT INTO "movements" VALUES(9,'MUG','',4,-4,94,1,'o-3',1,0);
INSERT INTO "movements" VALUES(10,'MUG','',5,-2,92,1,'o-4',1,1);
INSERT INTO "movements" VALUES(11,'MUG','',6,1,93,4,'o-4',1,2);
INSERT INTO "movements" VALUES(12,'HAT','',3,-3,0,1,'o-5',1,3);
INSERT INTO "movements" VALUES(12,'PEN','',2,-1,19,1,'o-5',1,3);
INSERT INTO "movements" VALUES(14,'PEN','',3,-2,17,1,'o-7',0,6);
INSERT INTO "movements" VALUES(16,'CAP','',1,7,7,10,'set-5d5116e1dbb43a77d5a9efb0992e503c',NULL,NULL);
INSERT INTO "order_lines" VALUES('o-1','MUG','',3,1);
INSERT INTO "order_lines" VALUES('o-4','MUG','',2,1);
INSERT INTO "positions" VALUES('NAME.adjustments',0,1);
INSERT INTO "positions" VALUES('NAME.adjustments',1,1);
INSERT INTO "positions" VALUES('NAME.orders',0,8);
INSERT INTO "positions" VALUES('NAME.orders',1,6);
INSERT INTO "unannounced_levels" VALUES('CAP','');
