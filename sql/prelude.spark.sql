-- The functions that the SQL in sql/ uses, for Spark 4.1; prelude.duckdb.sql defines the same for DuckDB.
-- Run it once per session. spark.sql.session.timeZone must be UTC; for files that other programs read, set
-- spark.sql.parquet.outputTimestampType to TIMESTAMP_MICROS.

-- A key or value of bronze as text (null if it is not text), as bytes, and its size in bytes.
CREATE OR REPLACE TEMPORARY FUNCTION text_of(kind STRING, s STRING) RETURNS STRING RETURN
  CASE kind WHEN 't' THEN coalesce(s, '') WHEN 'u' THEN decode(unbase64(s), 'UTF-8') END;
CREATE OR REPLACE TEMPORARY FUNCTION bytes_of(kind STRING, s STRING) RETURNS BINARY RETURN
  CASE kind WHEN 't' THEN encode(coalesce(s, ''), 'UTF-8') WHEN 'n' THEN NULL ELSE unbase64(s) END;
CREATE OR REPLACE TEMPORARY FUNCTION size_of(kind STRING, s STRING) RETURNS INT RETURN
  CASE kind WHEN 't' THEN octet_length(coalesce(s, '')) WHEN 'n' THEN 0 ELSE octet_length(unbase64(s)) END;

CREATE OR REPLACE TEMPORARY FUNCTION time_of(ms BIGINT) RETURNS TIMESTAMP RETURN
  CASE WHEN ms BETWEEN 0 AND 253402300799999 THEN timestamp_millis(ms) END;
CREATE OR REPLACE TEMPORARY FUNCTION utc_year(t TIMESTAMP) RETURNS INT RETURN year(t);
-- A $ would also match before a last line feed.
CREATE OR REPLACE TEMPORARY FUNCTION full_match(s STRING, regex STRING) RETURNS BOOLEAN RETURN
  s RLIKE ('(?s)^(?:' || regex || ')(?!.)');
CREATE OR REPLACE TEMPORARY FUNCTION pair(a DOUBLE, b DOUBLE) RETURNS ARRAY<DOUBLE> RETURN array(a, b);

-- Unicode's White_Space, U+200B, U+2060 and U+FEFF in UTF-8.
CREATE OR REPLACE TEMPORARY FUNCTION blanks() RETURNS STRING RETURN decode(unhex(
  '090A0B0C0D20C285C2A0E19A80E28080E28081E28082E28083E28084E28085E28086E28087E28088E28089E2808AE2808B'
  || 'E280A8E280A9E280AFE2819FE281A0E38080EFBBBF'), 'UTF-8');
CREATE OR REPLACE TEMPORARY FUNCTION trim_text(s STRING) RETURNS STRING RETURN nullif(trim(BOTH blanks() FROM s), '');
-- Without trim_text, because an SQL function does not accept the variable of a lambda.
CREATE OR REPLACE TEMPORARY FUNCTION split_tags(s STRING) RETURNS ARRAY<STRING> RETURN nullif(
  filter(transform(split(s, ','), tag -> trim(BOTH blanks() FROM tag)), tag -> tag <> ''), array());

-- Spark's JSON functions ignore text after the first value; as an array, with and without a second value, it shows.
CREATE OR REPLACE TEMPORARY FUNCTION json_ok(s STRING) RETURNS BOOLEAN RETURN
  try_parse_json('[' || s || ']') IS NOT NULL
    AND json_array_length('[' || s || ']') = 1 AND json_array_length('[' || s || ',0]') = 2;
-- The columns of a JSON object as texts; null if s is not an object.
CREATE OR REPLACE TEMPORARY FUNCTION json_fields(s STRING, columns STRING) RETURNS MAP<STRING, STRING> RETURN
  CASE WHEN trim_text(s) LIKE '{%' AND json_ok(s) THEN from_json(s, 'map<string,string>') END;
-- The columns that are missing in a JSON object; null if none is.
CREATE OR REPLACE TEMPORARY FUNCTION absent(s STRING, columns STRING) RETURNS STRING RETURN
  nullif(array_join(array_except(split(columns, ', '), json_object_keys(s)), ', '), '');

-- The named columns of a message as texts; null if the message is not a JSON object of at most 16 MB.
CREATE OR REPLACE TEMPORARY FUNCTION message_fields(value_is STRING, value STRING, columns STRING)
  RETURNS MAP<STRING, STRING> RETURN
  json_fields(CASE WHEN size_of(value_is, value) <= 16777216 THEN text_of(value_is, value) END, columns);
-- The columns that are missing in the message of f; null if none is.
CREATE OR REPLACE TEMPORARY FUNCTION missing_columns(f MAP<STRING, STRING>, value_is STRING, value STRING,
  columns STRING) RETURNS STRING RETURN CASE
  WHEN exists(split(columns, ', '), name -> f[name] IS NULL) AND f IS NOT NULL
    THEN absent(text_of(value_is, value), columns) END;
-- The reason to reject the whole message; null if there is none.
CREATE OR REPLACE TEMPORARY FUNCTION message_fault(f MAP<STRING, STRING>, value_is STRING, value STRING, missing STRING,
  ind BIGINT) RETURNS STRING RETURN CASE
  WHEN f IS NULL THEN CASE
    WHEN value_is <> 'b' AND trim_text(text_of(value_is, value)) IS NULL THEN 'empty_message'
    WHEN size_of(value_is, value) > 16777216 THEN 'too_big'
    WHEN value_is = 'b' OR NOT json_ok(text_of(value_is, value)) THEN 'not_json'
    ELSE 'not_an_object' END
  WHEN missing IS NOT NULL THEN 'missing_column'
  WHEN ind IS NULL THEN 'bad_key' END;
-- The detail of these reasons, except bad_key.
CREATE OR REPLACE TEMPORARY FUNCTION message_detail(reason STRING, value_is STRING, value STRING, missing STRING)
  RETURNS STRING RETURN CASE
  WHEN reason IS NULL THEN NULL
  WHEN reason = 'too_big' THEN 'value: ' || size_of(value_is, value) || ' bytes'
  WHEN reason = 'missing_column' THEN missing || ': absent'
  WHEN value_is = 'n' THEN 'value: null'
  WHEN value_is = 'b' THEN 'value: not UTF-8'
  ELSE 'value: ' || text_of(value_is, value) END;

-- The text of a column as a number or an instant; null if it is neither.
CREATE OR REPLACE TEMPORARY FUNCTION whole_number(s STRING) RETURNS BIGINT RETURN
  CASE WHEN full_match(s, '[0-9]+') THEN TRY_CAST(s AS BIGINT) END;
CREATE OR REPLACE TEMPORARY FUNCTION decimal_number(s STRING) RETURNS DOUBLE RETURN CASE
  WHEN full_match(s, '-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?') THEN TRY_CAST(s AS DOUBLE) END;
-- The regex takes only times of day that exist, the cast only days.
CREATE OR REPLACE TEMPORARY FUNCTION instant_of(s STRING) RETURNS TIMESTAMP RETURN CASE
  WHEN full_match(s, '[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?Z?')
    THEN TRY_CAST(replace(s, 'Z', '') || '+00:00' AS TIMESTAMP_LTZ) END;

CREATE OR REPLACE TEMPORARY FUNCTION exact_median(l ARRAY<BIGINT>) RETURNS DECIMAL(20, 1) RETURN
  CAST(0.5 * (CAST(get(array_sort(l), (size(l) + 1) DIV 2 - 1) AS DECIMAL(20, 1))
    + CAST(get(array_sort(l), size(l) DIV 2) AS DECIMAL(20, 1))) AS DECIMAL(20, 1));
CREATE OR REPLACE TEMPORARY FUNCTION age_group(age INT) RETURNS STRING RETURN CASE
  WHEN age < 18 THEN NULL WHEN age <= 24 THEN '18-24' WHEN age <= 35 THEN '25-35' WHEN age <= 50 THEN '36-50'
  WHEN age > 50 THEN '50+' END;
