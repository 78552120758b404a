-- Every message of the geo topic as a row of silver. If it breaks a rule: the reason, and the unchanged bytes.
-- cleaned: the rules of the columns. judged: the reasons in their order, after those of message_fault.
WITH parsed AS (
  SELECT *, message_fields(value_is, value, 'ind, timestamp, latitude, longitude, country') AS f
  FROM bronze
),

cleaned AS (
  SELECT *,
    whole_number(f.ind) AS ind,
    instant_of(f.timestamp) AS timestamp,
    decimal_number(f.latitude) AS latitude,
    decimal_number(f.longitude) AS longitude,
    trim_text(f.country) AS country,
    missing_columns(f, value_is, value, 'ind, timestamp, latitude, longitude, country') AS missing
  FROM parsed
),

judged AS (
  SELECT *,
    coalesce(message_fault(f, value_is, value, missing, ind), CASE
      WHEN (f.latitude IS NOT NULL OR f.longitude IS NOT NULL)
        AND (latitude BETWEEN -90 AND 90 AND longitude BETWEEN -180 AND 180) IS NOT TRUE THEN 'bad_coordinates'
      WHEN f.timestamp IS NOT NULL AND timestamp IS NULL THEN 'bad_timestamp'
    END) AS reject_reason
  FROM cleaned
)

SELECT
  ind, country, CASE WHEN latitude IS NOT NULL THEN pair(latitude, longitude) END AS coordinates, timestamp,
  _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE reject_reason
    WHEN 'bad_key' THEN 'ind: ' || coalesce(f.ind, 'null')
    WHEN 'bad_coordinates' THEN CASE
      WHEN latitude BETWEEN -90 AND 90 THEN 'longitude: ' || coalesce(f.longitude, 'null')
      ELSE 'latitude: ' || coalesce(f.latitude, 'null')
    END
    WHEN 'bad_timestamp' THEN 'timestamp: ' || f.timestamp
    ELSE message_detail(reject_reason, value_is, value, missing)
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
