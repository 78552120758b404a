-- Every message of the geo topic as a row of silver; where a rule is broken, why, and the bytes as they came.
-- The reasons stand in their order in judged, the rules of the columns in cleaned.
WITH message AS (
  SELECT *, text_of(value_is, value) AS text, size_of(value_is, value) AS bytes
  FROM bronze
),

parsed AS (
  SELECT *,
    json_fields(CASE WHEN bytes <= 16777216 THEN text END, 'ind, timestamp, latitude, longitude, country') AS f
  FROM message
),

cleaned AS (
  SELECT *,
    CASE WHEN full_match(f.ind, '[0-9]+') THEN TRY_CAST(f.ind AS BIGINT) END AS ind,
    -- The regex takes only times of day that exist, the cast only days.
    CASE
      WHEN full_match(f.timestamp, '[0-9]{4}-[0-9]{2}-[0-9]{2}[ T]'
          || '([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,6})?Z?')
        THEN TRY_CAST(replace(f.timestamp, 'Z', '') || '+00:00' AS TIMESTAMP_LTZ)
    END AS timestamp,
    CASE
      WHEN full_match(f.latitude, '-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?') THEN TRY_CAST(f.latitude AS DOUBLE)
    END AS latitude,
    CASE
      WHEN full_match(f.longitude, '-?[0-9]+([.][0-9]+)?([eE][+-]?[0-9]+)?') THEN TRY_CAST(f.longitude AS DOUBLE)
    END AS longitude,
    trim_text(f.country) AS country,
    CASE
      WHEN f IS NULL THEN NULL
      WHEN f.ind IS NULL OR f.timestamp IS NULL OR f.latitude IS NULL OR f.longitude IS NULL OR f.country IS NULL
        THEN absent(text, 'ind, timestamp, latitude, longitude, country')
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
      WHEN (f.latitude IS NOT NULL OR f.longitude IS NOT NULL)
        AND (latitude BETWEEN -90 AND 90 AND longitude BETWEEN -180 AND 180) IS NOT TRUE THEN 'bad_coordinates'
      WHEN f.timestamp IS NOT NULL AND timestamp IS NULL THEN 'bad_timestamp'
    END AS reject_reason
  FROM cleaned
)

SELECT
  ind, country, CASE WHEN latitude IS NOT NULL THEN pair(latitude, longitude) END AS coordinates, timestamp,
  _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE
    WHEN reject_reason IS NULL THEN NULL
    WHEN reject_reason = 'too_big' THEN 'value: ' || bytes || ' bytes'
    WHEN reject_reason = 'missing_column' THEN missing || ': absent'
    WHEN reject_reason = 'bad_key' THEN 'ind: ' || coalesce(f.ind, 'null')
    WHEN reject_reason = 'bad_coordinates' AND latitude BETWEEN -90 AND 90
      THEN 'longitude: ' || coalesce(f.longitude, 'null')
    WHEN reject_reason = 'bad_coordinates' THEN 'latitude: ' || coalesce(f.latitude, 'null')
    WHEN reject_reason = 'bad_timestamp' THEN 'timestamp: ' || f.timestamp
    WHEN value_is = 'n' THEN 'value: null'
    WHEN value_is = 'b' THEN 'value: not UTF-8'
    ELSE 'value: ' || text
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
