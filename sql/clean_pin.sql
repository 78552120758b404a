-- Every message of the pin topic as a row of silver. If it breaks a rule: the reason, and the unchanged bytes.
-- trimmed, cleaned: the rules of the columns. judged: the reasons in their order, after those of message_fault.
WITH parsed AS (
  SELECT *,
    message_fields(value_is, value, 'index, unique_id, title, description, poster_name, follower_count, tag_list, '
      || 'is_image_or_video, image_src, save_location, category') AS f
  FROM bronze
),

trimmed AS (
  SELECT *,
    CASE
      WHEN f.index IS NULL AND missing_columns(f, value_is, value, 'index') IS NOT NULL
        THEN message_fields(value_is, value, 'ind').ind
      ELSE f.index
    END AS key_text,
    trim_text(f.unique_id) AS unique_id,
    nullif(trim_text(f.title), 'No Title Data Available') AS title,
    nullif(nullif(trim_text(f.description), 'No description available Story format'),
      'No description available') AS description,
    nullif(trim_text(f.poster_name), 'User Info Error') AS poster_name,
    nullif(trim_text(f.follower_count), 'User Info Error') AS followers,
    nullif(trim_text(f.tag_list), 'N,o, ,T,a,g,s, ,A,v,a,i,l,a,b,l,e') AS tags,
    trim_text(f.is_image_or_video) AS is_image_or_video,
    nullif(trim_text(f.image_src), 'Image src error.') AS image_src,
    trim_text(f.save_location) AS place,
    trim_text(f.category) AS category
  FROM parsed
),

cleaned AS (
  SELECT *,
    whole_number(key_text) AS ind,
    -- As text, because a product of doubles is not exact: k, M and B append zeros, and fraction digits replace them.
    TRY_CAST(CASE
      WHEN full_match(followers, '[0-9]+[kKmMbB]?')
        THEN replace(replace(replace(lower(followers), 'k', '000'), 'm', '000000'), 'b', '000000000')
      WHEN full_match(followers, '([0-9]+|[0-9]{1,3}(,[0-9]{3})+)'
          || '(|([.][0-9]{1,3}0*)?[kK]|([.][0-9]{1,6}0*)?[mM]|([.][0-9]{1,9}0*)?[bB])')
        THEN replace(split_part(trim(TRAILING 'kKmMbB' FROM followers), '.', 1), ',', '')
          || rpad(split_part(trim(TRAILING 'kKmMbB' FROM followers), '.', 2),
            CASE lower(right(followers, 1)) WHEN 'k' THEN 3 WHEN 'm' THEN 6 WHEN 'b' THEN 9 ELSE 0 END, '0')
    END AS BIGINT) AS follower_count,
    split_tags(tags) AS tag_list,
    CASE
      WHEN place LIKE 'Local save in %' THEN trim_text(substr(place, length('Local save in ') + 1))
      ELSE place
    END AS save_location,
    CASE
      WHEN key_text IS NULL AND missing_columns(f, value_is, value, 'index, ind') = 'index, ind' THEN 'index'
      ELSE missing_columns(f, value_is, value, 'unique_id, title, description, poster_name, follower_count, tag_list, '
        || 'is_image_or_video, image_src, save_location, category')
    END AS missing
  FROM trimmed
),

judged AS (
  SELECT *,
    coalesce(message_fault(f, value_is, value, missing, ind), CASE
      WHEN followers IS NOT NULL AND follower_count IS NULL THEN 'bad_follower_count'
    END) AS reject_reason
  FROM cleaned
)

SELECT
  ind, unique_id, title, description, follower_count, poster_name, tag_list, is_image_or_video,
  image_src, save_location, category, _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE reject_reason
    WHEN 'bad_key' THEN 'index: ' || coalesce(key_text, 'null')
    WHEN 'bad_follower_count' THEN 'follower_count: ' || f.follower_count
    ELSE message_detail(reject_reason, value_is, value, missing)
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
