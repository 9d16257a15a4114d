-- The shop's database: psql --single-transaction --file catalogue.sql <database>
CREATE TABLE products (
    id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name text NOT NULL UNIQUE,
    cents integer NOT NULL CHECK (cents > 0)
);
INSERT INTO products (name, cents) VALUES ('tea', 450), ('coffee', 690), ('cocoa', 520);
