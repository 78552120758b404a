-- Counts of clean rows that the answers leave out.
SELECT *
FROM (
  SELECT CAST(count(*) AS BIGINT) AS pins,
    CAST(count(CASE WHEN category IS NULL THEN 1 END) AS BIGINT) AS no_category,
    CAST(count(CASE WHEN poster_name IS NULL THEN 1 END) AS BIGINT) AS no_poster,
    CAST(count(CASE WHEN follower_count IS NULL THEN 1 END) AS BIGINT) AS no_followers,
    CAST(count(CASE WHEN follower_count % 1000 = 0 AND follower_count > 0 THEN 1 END) AS BIGINT) AS whole_thousands
  FROM pin
) CROSS JOIN (
  SELECT CAST(count(*) AS BIGINT) AS places,
    CAST(count(CASE WHEN country IS NULL THEN 1 END) AS BIGINT) AS no_country,
    CAST(count(CASE WHEN coordinates IS NULL THEN 1 END) AS BIGINT) AS no_coordinates,
    CAST(count(CASE WHEN timestamp IS NULL THEN 1 END) AS BIGINT) AS no_time,
    CAST(count(CASE WHEN utc_year(timestamp) NOT BETWEEN 2018 AND 2022 THEN 1 END) AS BIGINT) AS other_year
  FROM geo
) CROSS JOIN (
  SELECT CAST(count(*) AS BIGINT) AS users,
    CAST(count(CASE WHEN age IS NULL THEN 1 END) AS BIGINT) AS no_age,
    CAST(count(CASE WHEN age < 18 THEN 1 END) AS BIGINT) AS under_18,
    CAST(count(CASE WHEN date_joined IS NULL THEN 1 END) AS BIGINT) AS no_join_date,
    CAST(count(CASE WHEN utc_year(date_joined) NOT BETWEEN 2015 AND 2020 THEN 1 END) AS BIGINT) AS other_join_year
  FROM users
)
