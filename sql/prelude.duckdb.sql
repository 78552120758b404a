-- The functions that the SQL in sql/ uses, for DuckDB; prelude.spark.sql defines the same for Spark.
-- Run it once per connection, with UTC as the time zone of the session.

CREATE OR REPLACE TYPE TIMESTAMP_LTZ AS TIMESTAMPTZ;

-- A key or value of bronze as text (null if it is not text), as bytes, and its size in bytes.
CREATE OR REPLACE MACRO text_of(kind, s) AS
  CASE kind WHEN 't' THEN coalesce(s, '') WHEN 'u' THEN decode(from_base64(s)) END;
CREATE OR REPLACE MACRO bytes_of(kind, s) AS
  CASE kind WHEN 't' THEN encode(coalesce(s, '')) WHEN 'n' THEN NULL ELSE from_base64(s) END;
CREATE OR REPLACE MACRO size_of(kind, s) AS
  CASE kind WHEN 't' THEN strlen(coalesce(s, '')) WHEN 'n' THEN 0 ELSE octet_length(from_base64(s)) END;

CREATE OR REPLACE MACRO time_of(ms) AS
  CASE WHEN ms BETWEEN 0 AND 253402300799999 THEN make_timestamptz(ms * 1000) END;
CREATE OR REPLACE MACRO utc_year(t) AS CAST(year(CAST(t AS TIMESTAMP)) AS INT);
CREATE OR REPLACE MACRO full_match(s, regex) AS regexp_full_match(s, regex);
CREATE OR REPLACE MACRO pair(a, b) AS [a, b];

CREATE OR REPLACE MACRO json_ok(s) AS json_valid(s);
-- The named columns of a JSON object as texts; null if s is not an object. Malformed JSON throws. After
-- SET VARIABLE tolerant = true it gives null instead, but slower, because TRY copies every text.
CREATE OR REPLACE MACRO json_texts(s, columns) AS json_transform(
  CASE WHEN starts_with(s, '{') OR regexp_matches(s, '^[[:space:]]*[{]') THEN s END,
  to_json(map(string_split(columns, ', '), list_transform(string_split(columns, ', '), LAMBDA c: 'VARCHAR'))));
CREATE OR REPLACE MACRO json_fields(s, columns) AS
  CASE WHEN getvariable('tolerant') THEN TRY(json_texts(s, columns)) ELSE json_texts(s, columns) END;
-- The columns that are missing in a JSON object; null if none is.
CREATE OR REPLACE MACRO absent(s, columns) AS TRY(nullif(array_to_string(list_where(string_split(columns, ', '),
  list_transform(json_exists(s, string_split(columns, ', ')), LAMBDA found: NOT found)), ', '), ''));

-- Unicode's White_Space, U+200B, U+2060 and U+FEFF in UTF-8, for a regex class (2D is the hyphen of a range).
CREATE OR REPLACE MACRO blanks() AS
  decode(unhex('092D0D20C285C2A0E19A80E280802DE2808BE280A8E280A9E280AFE2819FE281A0E38080EFBBBF'));
-- Nearly every text starts and ends with printable ASCII; that check costs a tenth of the regex.
CREATE OR REPLACE MACRO trim_text(s) AS CASE
  WHEN s[-1] BETWEEN '!' AND '~' AND s >= '!' AND s < chr(127) THEN s
  WHEN s >= '!' AND s < chr(127) THEN regexp_replace(s, '[' || blanks() || ']+$', '')
  WHEN regexp_full_match(s, '[' || blanks() || ']*') THEN NULL
  ELSE regexp_replace(regexp_replace(s, '^[' || blanks() || ']+', ''), '[' || blanks() || ']+$', '') END;
CREATE OR REPLACE MACRO split_tags(s) AS string_split(CASE
  WHEN NOT regexp_matches(s, '[,' || blanks() || '],|,[' || blanks() || ']|^,|,$') THEN s
  ELSE nullif(trim(regexp_replace(s, '[' || blanks() || ']*,[,' || blanks() || ']*', ',', 'g'), ','), '') END, ',');

-- The named columns of a message as texts; null if the message is not a JSON object of at most 16 MB. The || makes
-- DuckDB require the columns as a constant where the macro is used, not where it is defined.
CREATE OR REPLACE MACRO message_fields(value_is, value, columns) AS
  json_fields(CASE WHEN size_of(value_is, value) <= 16777216 THEN text_of(value_is, value) END, columns || '');
-- The columns that are missing in the message of f; null if none is. Only messages with a NULL in f, which
-- struct_position finds, are parsed again.
CREATE OR REPLACE MACRO missing_columns(f, value_is, value, columns) AS CASE
  WHEN struct_position(struct_values(f), NULL::VARCHAR) IS NOT NULL THEN absent(text_of(value_is, value), columns) END;
-- The reason to reject the whole message; null if there is none.
CREATE OR REPLACE MACRO message_fault(f, value_is, value, missing, ind) AS CASE
  WHEN f IS NULL THEN CASE
    WHEN value_is <> 'b' AND trim_text(text_of(value_is, value)) IS NULL THEN 'empty_message'
    WHEN size_of(value_is, value) > 16777216 THEN 'too_big'
    WHEN value_is = 'b' OR NOT json_ok(text_of(value_is, value)) THEN 'not_json'
    ELSE 'not_an_object' END
  WHEN missing IS NOT NULL THEN 'missing_column'
  WHEN ind IS NULL THEN 'bad_key' END;
-- The detail of these reasons, except bad_key.
CREATE OR REPLACE MACRO message_detail(reason, value_is, value, missing) AS CASE
  WHEN reason IS NULL THEN NULL
  WHEN reason = 'too_big' THEN 'value: ' || size_of(value_is, value) || ' bytes'
  WHEN reason = 'missing_column' THEN missing || ': absent'
  WHEN value_is = 'n' THEN 'value: null'
  WHEN value_is = 'b' THEN 'value: not UTF-8'
  ELSE 'value: ' || text_of(value_is, value) END;

-- The text of a column as a number or an instant; null if it is neither.
CREATE OR REPLACE MACRO whole_number(s) AS CASE WHEN full_match(s, '[0-9]+') THEN TRY_CAST(s AS BIGINT) END;
CREATE OR REPLACE MACRO decimal_number(s) AS CASE
  WHEN full_match(s, '-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?') THEN TRY_CAST(s AS DOUBLE) END;
-- The regex accepts only existing times of day, the cast only existing days.
CREATE OR REPLACE MACRO instant_of(s) AS CASE
  WHEN full_match(s, '[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?Z?')
    THEN TRY_CAST(replace(s, 'Z', '') || '+00:00' AS TIMESTAMP_LTZ) END;

-- The median of whole numbers. The medians of the engines are doubles, which are not exact above 2^53.
CREATE OR REPLACE MACRO exact_median(l) AS CAST(0.5 * (CAST(list_sort(l)[(len(l) + 1) // 2] AS DECIMAL(20, 1))
  + CAST(list_sort(l)[len(l) // 2 + 1] AS DECIMAL(20, 1))) AS DECIMAL(20, 1));
CREATE OR REPLACE MACRO age_group(age) AS CASE
  WHEN age < 18 THEN NULL WHEN age <= 24 THEN '18-24' WHEN age <= 35 THEN '25-35' WHEN age <= 50 THEN '36-50'
  WHEN age > 50 THEN '50+' END;
