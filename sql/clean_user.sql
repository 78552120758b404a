-- Every message of the user topic as a row of silver; where a rule is broken, why, and the bytes as they came.
-- The reasons stand in their order in judged, the rules of the columns in cleaned.
WITH message AS (
  SELECT *, text_of(value_is, value) AS text, size_of(value_is, value) AS bytes
  FROM bronze
),

parsed AS (
  SELECT *,
    json_fields(CASE WHEN bytes <= 16777216 THEN text END, 'ind, first_name, last_name, age, date_joined') AS f
  FROM message
),

cleaned AS (
  SELECT *,
    CASE WHEN full_match(f.ind, '[0-9]+') THEN TRY_CAST(f.ind AS BIGINT) END AS ind,
    nullif(concat_ws(' ', trim_text(f.first_name), trim_text(f.last_name)), '') AS user_name,
    CASE WHEN full_match(f.age, '[0-9]+') THEN TRY_CAST(f.age AS INT) END AS age,
    -- The regex takes only times of day that exist, the cast only days.
    CASE
      WHEN full_match(f.date_joined, '[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]'
          || '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?Z?')
        THEN TRY_CAST(replace(f.date_joined, 'Z', '') || '+00:00' AS TIMESTAMP_LTZ)
    END AS date_joined,
    CASE
      WHEN f IS NULL THEN NULL
      WHEN f.ind IS NULL OR f.first_name IS NULL OR f.last_name IS NULL OR f.age IS NULL OR f.date_joined IS NULL
        THEN absent(text, 'ind, first_name, last_name, age, date_joined')
    END AS missing
  FROM parsed
),

judged AS (
  SELECT *,
    CASE
      WHEN f IS NULL THEN CASE
        WHEN value_is <> 'b' AND trim_text(text) IS NULL THEN 'empty_message'
        WHEN bytes > 16777216 THEN 'too_big'
        WHEN value_is = 'b' OR NOT json_ok(text) THEN 'not_json'
        ELSE 'not_an_object'
      END
      WHEN missing IS NOT NULL THEN 'missing_column'
      WHEN ind IS NULL THEN 'bad_key'
      WHEN f.date_joined IS NOT NULL AND date_joined IS NULL THEN 'bad_timestamp'
      WHEN f.age IS NOT NULL AND (age BETWEEN 0 AND 130) IS NOT TRUE THEN 'bad_age'
    END AS reject_reason
  FROM cleaned
)

SELECT
  ind, user_name, age, date_joined, _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE
    WHEN reject_reason IS NULL THEN NULL
    WHEN reject_reason = 'too_big' THEN 'value: ' || bytes || ' bytes'
    WHEN reject_reason = 'missing_column' THEN missing || ': absent'
    WHEN reject_reason = 'bad_key' THEN 'ind: ' || coalesce(f.ind, 'null')
    WHEN reject_reason = 'bad_timestamp' THEN 'date_joined: ' || f.date_joined
    WHEN reject_reason = 'bad_age' THEN 'age: ' || f.age
    WHEN value_is = 'n' THEN 'value: null'
    WHEN value_is = 'b' THEN 'value: not UTF-8'
    ELSE 'value: ' || text
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
