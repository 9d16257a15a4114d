CREATE TABLE public.orders (id bigserial PRIMARY KEY, customer text NOT NULL, placed timestamptz NOT NULL DEFAULT now());
