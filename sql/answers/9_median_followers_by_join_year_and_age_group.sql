-- Median number of followers by age group and year of joining
-- Years 2015 to 2020.
SELECT age_group, join_year, exact_median(counts) AS median_follower_count
FROM (
  SELECT age_group(users.age) AS age_group, utc_year(users.date_joined) AS join_year,
    array_agg(pin.follower_count) FILTER (WHERE pin.follower_count IS NOT NULL) AS counts
  FROM pin JOIN users ON pin.ind = users.ind
  WHERE users.age >= 18 AND utc_year(users.date_joined) BETWEEN 2015 AND 2020
  GROUP BY age_group(users.age), utc_year(users.date_joined)
)
ORDER BY age_group, join_year
