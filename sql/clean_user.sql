-- Every message of the user topic as a row of silver. If it breaks a rule: the reason, and the unchanged bytes.
-- cleaned: the rules of the columns. judged: the reasons in their order, after those of message_fault.
WITH parsed AS (
  SELECT *, message_fields(value_is, value, 'ind, first_name, last_name, age, date_joined') AS f
  FROM bronze
),

cleaned AS (
  SELECT *,
    whole_number(f.ind) AS ind,
    nullif(concat_ws(' ', trim_text(f.first_name), trim_text(f.last_name)), '') AS user_name,
    TRY_CAST(whole_number(f.age) AS INT) AS age,
    instant_of(f.date_joined) AS date_joined,
    missing_columns(f, value_is, value, 'ind, first_name, last_name, age, date_joined') AS missing
  FROM parsed
),

judged AS (
  SELECT *,
    coalesce(message_fault(f, value_is, value, missing, ind), CASE
      WHEN f.date_joined IS NOT NULL AND date_joined IS NULL THEN 'bad_timestamp'
      WHEN f.age IS NOT NULL AND (age BETWEEN 0 AND 130) IS NOT TRUE THEN 'bad_age'
    END) AS reject_reason
  FROM cleaned
)

SELECT
  ind, user_name, age, date_joined, _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE reject_reason
    WHEN 'bad_key' THEN 'ind: ' || coalesce(f.ind, 'null')
    WHEN 'bad_timestamp' THEN 'date_joined: ' || f.date_joined
    WHEN 'bad_age' THEN 'age: ' || f.age
    ELSE message_detail(reject_reason, value_is, value, missing)
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
