-- A database with everything PostgreSQL has that a backup could lose. :role and :reader are roles.
-- What only some encodings or builds have (ICU, contrib, XML) is in test_pg_round_trip.py.
SET client_min_messages = warning;

CREATE SCHEMA extra AUTHORIZATION :"role";
CREATE SCHEMA "Odd ""schema"" \\";
COMMENT ON SCHEMA extra IS 'it''s "quoted" \\ and
on two lines';

CREATE TYPE extra.mood AS ENUM ('sad', 'it''s ok', 'happy');
CREATE TYPE extra.pair AS (a int, b text);
CREATE DOMAIN extra.positive AS int CHECK (VALUE > 0) DEFAULT 1;
CREATE TYPE extra.floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE COLLATION extra.c FROM "C";

CREATE TABLE types (
  id int GENERATED ALWAYS AS IDENTITY (START WITH 10 INCREMENT BY 5) PRIMARY KEY,
  a smallint, b bigint, c numeric, d numeric(12, 3), e real, f double precision, g money,
  h char(5), i varchar(20), j text COLLATE extra.c, k bytea, l date, m time, n timetz, o timestamp, p timestamptz,
  q interval, r boolean, s uuid, t json, u jsonb, w inet, x cidr, y macaddr, z macaddr8,
  aa bit(5), ab varbit, ac point, ad line, ae lseg, af box, ag path, ah polygon, ai circle, aj tsvector, ak tsquery,
  al int4range, am tstzrange, an nummultirange, ao int[], ap text[][], aq extra.mood, ar extra.pair, "as" extra.positive,
  at extra.floatrange, au extra.pair[], av pg_lsn, aw regclass, ax oid, ay "char", az name, ba pg_snapshot, bb jsonpath,
  bc extra.mood[]
);
INSERT INTO types (a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, r, s, t, u, w, x, y, z, aa, ab, ac, ad, ae, af, ag,
  ah, ai, aj, ak, al, am, an, ao, ap, aq, ar, "as", at, au, av, aw, ax, ay, az, ba, bb, bc) VALUES
  (-32768, 9223372036854775807, 'NaN', 123456789.125, '-Infinity', 1e-307, '-12.34', 'ab', '', E'tab\tnew\nline\\.\r',
   '\x00ff5c27', '0044-03-15 BC', '24:00', '23:59:59.999999+15:59', 'infinity', '2026-11-24 11:00:00.000001+05:30',
   '1 year -2 months 3 days -04:05:06.789', true, 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{"b": 1,  "a": [1.50, null]}',
   '{"b": 1, "a": [1.50, null, "\u0041"]}', '::ffff:1.2.3.4/128', '10.1.0.0/16', '08:00:2b:01:02:03',
   '08:00:2b:01:02:03:04:05', B'10101', B'', '(1.5,-2)', '{1,2,3}', '[(0,0),(1,1)]', '((0,0),(2,3))', '[(0,0),(1,1),(2,0)]',
   '((0,0),(1,1),(2,0))', '<(1,2),3>', 'a:1A b:2', 'a & !b', '[1,10)', '["2026-01-01 00:00+00",)', '{[1.5,2],(3,)}',
   '[-2:0]={1,NULL,3}', '{{"a","NULL"},{NULL,""}}', 'it''s ok', '(7,"a ""b"",")', 5, '[0.1,0.2]', '{"(1,x)",NULL}',
   '16/B374D848', 'types', 4294967295, '\377', 'name', '10:20:10,14,15', '$.a[*] ? (@ > 1)', '{sad,happy}'),
  (0, -9223372036854775808, 'Infinity', -0.001, 'NaN', '-0', '92233720368547758.07', '', ' ', '\N', '', '5874897-12-31',
   '00:00', '00:00-15:59', '-infinity', '-infinity', '0', false, '00000000-0000-0000-0000-000000000000', 'null', 'null',
   '::1', '::/0', 'ff:ff:ff:ff:ff:ff', '00:00:00:00:00:00:00:00', B'00000', B'1', '(0,0)', '{0,1,0}',
   '[(0,0),(0,0)]', '((0,0),(0,0))', '((0,0))', '((0,0))', '<(0,0),0>', '', '', 'empty', 'empty', '{}', '{}', '{}', 'sad',
   '(,)', 1, 'empty', '{}', '0/0', NULL, 0, '', '', '1:1:', '$', '{}');
INSERT INTO types DEFAULT VALUES;
INSERT INTO types (i, j, u) SELECT i, repeat(md5(i::text), 200), jsonb_build_object('n', i) FROM generate_series(1, 300) i;
DELETE FROM types WHERE id % 7 = 0;

CREATE TABLE generated (w numeric NOT NULL, h numeric, area numeric GENERATED ALWAYS AS (w * h) STORED, dropped int,
  label text GENERATED ALWAYS AS (upper('x' || w::text)) STORED, big text);
ALTER TABLE generated ALTER COLUMN big SET STORAGE EXTERNAL;
ALTER TABLE generated DROP COLUMN dropped;
ALTER TABLE generated ALTER COLUMN h SET STATISTICS 500, ALTER COLUMN h SET (n_distinct = -0.5);
INSERT INTO generated (w, h, big) SELECT i, i / 3.0, repeat('x', i * 100) FROM generate_series(1, 50) i;

CREATE SEQUENCE down INCREMENT -3 MINVALUE -1000 MAXVALUE 10 START 10 CACHE 5;
SELECT nextval('down'), nextval('down');
CREATE SEQUENCE round MINVALUE 1 MAXVALUE 3 CYCLE AS smallint;
SELECT setval('round', 2, false);
CREATE SEQUENCE unused;
CREATE TABLE serials (a bigserial, b serial UNIQUE, c int DEFAULT nextval('down'));
INSERT INTO serials SELECT FROM generate_series(1, 20);
ALTER SEQUENCE serials_b_seq OWNED BY NONE;

CREATE TABLE parent (id int PRIMARY KEY, kind text NOT NULL, at date NOT NULL DEFAULT '2026-11-24') WITH (fillfactor = 70);
CREATE TABLE child (extra text) INHERITS (parent);
ALTER TABLE child ADD CONSTRAINT child_kind CHECK (kind <> '') NOT VALID;
INSERT INTO parent VALUES (1, 'a'), (2, 'b');
INSERT INTO child VALUES (1, 'c', '2026-01-01', 'own');
CREATE TABLE one (id int PRIMARY KEY, two int);
CREATE TABLE two (id int PRIMARY KEY, one int REFERENCES one DEFERRABLE INITIALLY DEFERRED);
ALTER TABLE one ADD FOREIGN KEY (two) REFERENCES two ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED;
BEGIN; INSERT INTO one VALUES (1, 1); INSERT INTO two VALUES (1, 1); COMMIT;

CREATE TABLE events (id bigint, at timestamptz, region text) PARTITION BY RANGE (at);
CREATE TABLE events_2025 PARTITION OF events FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY LIST (region);
CREATE TABLE events_2025_eu PARTITION OF events_2025 FOR VALUES IN ('eu', NULL);
CREATE TABLE events_2025_other PARTITION OF events_2025 DEFAULT;
CREATE TABLE events_rest PARTITION OF events DEFAULT;
CREATE INDEX events_region ON events (region) WHERE region IS NOT NULL;
INSERT INTO events SELECT i, '2025-06-01'::timestamptz + i * interval '2 days', (ARRAY['eu', 'us', NULL])[i % 3 + 1]
  FROM generate_series(1, 200) i;
CREATE TABLE hashed (id int PRIMARY KEY, note text) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE hashed_1 PARTITION OF hashed FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO hashed SELECT i, 'n' || i FROM generate_series(1, 50) i;

CREATE TABLE "Odd ""schema"" \\"."Tab""le \\ '" ("co""l \\" text, "select" int, "SELECT" int);
INSERT INTO "Odd ""schema"" \\"."Tab""le \\ '" VALUES ('x', 1, 2);
CREATE TABLE nothing ();
INSERT INTO nothing DEFAULT VALUES;
CREATE TABLE empty (a int);
CREATE UNLOGGED TABLE unlogged AS SELECT 1 AS a;
CREATE TABLE twice (a int);
INSERT INTO twice VALUES (1), (1), (2);
ALTER TABLE twice REPLICA IDENTITY FULL;
CREATE TABLE spans (during tsrange, EXCLUDE USING gist (during WITH &&));
INSERT INTO spans VALUES ('[2026-01-01,2026-02-01)');
CREATE INDEX types_expression ON types ((lower(i)) text_pattern_ops DESC NULLS LAST) INCLUDE (a) WHERE a IS NOT NULL;
CREATE INDEX types_json ON types USING gin (u jsonb_path_ops);
CREATE UNIQUE INDEX generated_w ON generated (w);
ALTER TABLE generated CLUSTER ON generated_w;
CREATE STATISTICS extra.stats (dependencies, mcv) ON a, b FROM types;

CREATE FUNCTION extra.add(a int, b int DEFAULT 2, OUT total int) LANGUAGE plpgsql STRICT IMMUTABLE PARALLEL SAFE AS $body$
BEGIN
  total := a + b; -- \not a command
END $body$;
CREATE FUNCTION standard(a int) RETURNS int RETURN a + 1;
CREATE FUNCTION secure() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public, pg_temp AS 'SELECT current_user::text';
CREATE PROCEDURE work(INOUT a int) LANGUAGE plpgsql AS 'BEGIN a := a * 2; END';
CREATE AGGREGATE total(int) (SFUNC = int4pl, STYPE = int, INITCOND = '0');
CREATE OPERATOR === (LEFTARG = int, RIGHTARG = int, FUNCTION = int4eq, COMMUTATOR = ===);
CREATE FUNCTION to_positive(text) RETURNS extra.pair LANGUAGE sql IMMUTABLE AS 'SELECT (1, $1)::extra.pair';
CREATE CAST (text AS extra.pair) WITH FUNCTION to_positive(text);
CREATE TEXT SEARCH CONFIGURATION extra.words (COPY = simple);
CREATE TEXT SEARCH DICTIONARY extra.plain (TEMPLATE = simple);

CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.kind := NEW.kind || ''!''; RETURN NEW; END';
CREATE TRIGGER stamped BEFORE INSERT OR UPDATE OF kind ON parent FOR EACH ROW WHEN (NEW.kind IS NOT NULL) EXECUTE FUNCTION stamp();
CREATE TRIGGER off BEFORE DELETE ON parent FOR EACH ROW EXECUTE FUNCTION stamp();
ALTER TABLE parent DISABLE TRIGGER off;
CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
CREATE TRIGGER of_partitions AFTER INSERT ON events FOR EACH ROW EXECUTE FUNCTION pass();
CREATE RULE no_delete AS ON DELETE TO nothing DO INSTEAD NOTHING;
CREATE FUNCTION told() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
CREATE EVENT TRIGGER tells ON ddl_command_end WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION told();

CREATE VIEW plain WITH (security_barrier) AS SELECT id, kind FROM parent WHERE kind <> 'z' WITH CASCADED CHECK OPTION;
CREATE VIEW extra.over AS SELECT * FROM plain;
CREATE RECURSIVE VIEW counted (n) AS VALUES (1) UNION ALL SELECT n + 1 FROM counted WHERE n < 5;
CREATE MATERIALIZED VIEW summed AS SELECT kind, count(*) FROM parent GROUP BY kind;
CREATE UNIQUE INDEX ON summed (kind);
CREATE MATERIALIZED VIEW unfilled AS SELECT 1 AS a WITH NO DATA;

CREATE PUBLICATION few FOR TABLE twice, ONLY parent WITH (publish = 'insert, update');
CREATE PUBLICATION everything FOR ALL TABLES WITH (publish = 'insert');
CREATE FOREIGN DATA WRAPPER nowhere;
CREATE SERVER far FOREIGN DATA WRAPPER nowhere OPTIONS (host 'h', "odd name" 'it''s');
CREATE USER MAPPING FOR :"role" SERVER far OPTIONS (user 'u');
CREATE FOREIGN TABLE distant (a int OPTIONS (column_name 'b')) SERVER far;

ALTER TABLE two ENABLE ROW LEVEL SECURITY;
ALTER TABLE two FORCE ROW LEVEL SECURITY;
CREATE POLICY own ON two FOR SELECT TO :"role" USING (id > 0);
CREATE POLICY strict ON two AS RESTRICTIVE USING (one IS NOT NULL) WITH CHECK (true);

ALTER TABLE parent OWNER TO :"role";
ALTER FUNCTION extra.add OWNER TO :"role";
ALTER SEQUENCE down OWNER TO :"role";
ALTER MATERIALIZED VIEW summed OWNER TO :"role";
GRANT SELECT, INSERT (kind) ON parent TO :"reader" WITH GRANT OPTION;
GRANT UPDATE (b) ON types TO PUBLIC;
GRANT USAGE ON SEQUENCE down TO :"reader";
GRANT USAGE ON SCHEMA extra TO :"reader";
REVOKE EXECUTE ON FUNCTION secure() FROM PUBLIC;
GRANT EXECUTE ON FUNCTION secure() TO :"reader";
REVOKE USAGE ON TYPE extra.mood FROM PUBLIC;
REVOKE ALL ON twice FROM CURRENT_USER;
ALTER DEFAULT PRIVILEGES IN SCHEMA extra GRANT SELECT ON TABLES TO :"reader";
ALTER DEFAULT PRIVILEGES FOR ROLE :"role" REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;
COMMENT ON TABLE parent IS 'a table';
COMMENT ON COLUMN parent.kind IS 'a column';
COMMENT ON INDEX types_json IS 'an index';
COMMENT ON FUNCTION extra.add IS 'a function';
COMMENT ON CONSTRAINT child_kind ON child IS 'a constraint';
COMMENT ON TRIGGER off ON parent IS 'a trigger';

SELECT lo_from_bytea(70001, '\x00ff');
SELECT lo_from_bytea(70002, convert_to(repeat('large ', 100000), 'UTF8'));
SELECT lo_create(70003);
GRANT SELECT ON LARGE OBJECT 70001 TO :"reader";
ALTER LARGE OBJECT 70002 OWNER TO :"role";
COMMENT ON LARGE OBJECT 70003 IS 'empty';
