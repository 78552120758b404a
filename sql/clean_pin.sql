-- Every message of the pin topic as a row of silver; where a rule is broken, why, and the bytes as they came.
-- The reasons stand in their order in judged, the rules of the columns in trimmed and cleaned.
WITH message AS (
  SELECT *, text_of(value_is, value) AS text, size_of(value_is, value) AS bytes
  FROM bronze
),

parsed AS (
  SELECT *,
    json_fields(
      CASE WHEN bytes <= 16777216 THEN text END,
      'index, ind, unique_id, title, description, poster_name, follower_count, tag_list, '
        || 'is_image_or_video, image_src, save_location, category'
    ) AS f
  FROM message
),

trimmed AS (
  SELECT *,
    CASE
      WHEN f IS NULL THEN NULL
      WHEN f.index IS NULL AND absent(text, 'index') IS NOT NULL THEN f.ind
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
    CASE WHEN full_match(key_text, '[0-9]+') THEN TRY_CAST(key_text AS BIGINT) END AS ind,
    -- In digits, as a product of doubles would not be exact: k, M and B append zeros, which a fraction fills.
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
      WHEN f IS NULL THEN NULL
      WHEN key_text IS NULL AND absent(text, 'index, ind') = 'index, ind' THEN 'index'
      WHEN f.unique_id IS NULL OR f.title IS NULL OR f.description IS NULL OR f.poster_name IS NULL
        OR f.follower_count IS NULL OR f.tag_list IS NULL OR f.is_image_or_video IS NULL
        OR f.image_src IS NULL OR f.save_location IS NULL OR f.category IS NULL
        THEN absent(text, 'unique_id, title, description, poster_name, follower_count, tag_list, '
          || 'is_image_or_video, image_src, save_location, category')
    END AS missing
  FROM trimmed
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
      WHEN followers IS NOT NULL AND follower_count IS NULL THEN 'bad_follower_count'
    END AS reject_reason
  FROM cleaned
)

SELECT
  ind, unique_id, title, description, follower_count, poster_name, tag_list, is_image_or_video,
  image_src, save_location, category, _partition, _offset, time_of(posted_ms) AS _posted_at,
  reject_reason,
  left(CASE
    WHEN reject_reason IS NULL THEN NULL
    WHEN reject_reason = 'too_big' THEN 'value: ' || bytes || ' bytes'
    WHEN reject_reason = 'missing_column' THEN missing || ': absent'
    WHEN reject_reason = 'bad_key' THEN 'index: ' || coalesce(key_text, 'null')
    WHEN reject_reason = 'bad_follower_count' THEN 'follower_count: ' || f.follower_count
    WHEN value_is = 'n' THEN 'value: null'
    WHEN value_is = 'b' THEN 'value: not UTF-8'
    ELSE 'value: ' || text
  END, 200) AS reject_detail,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(key_is, key) END AS reject_key,
  CASE WHEN reject_reason IS NOT NULL THEN bytes_of(value_is, value) END AS reject_raw
FROM judged
