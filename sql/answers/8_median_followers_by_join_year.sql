-- Median number of followers by the year of joining
-- Years 2015 to 2020.
SELECT join_year, exact_median(counts) AS median_follower_count
FROM (
  SELECT utc_year(users.date_joined) AS join_year,
    array_agg(pin.follower_count) FILTER (WHERE pin.follower_count IS NOT NULL) AS counts
  FROM pin JOIN users ON pin.ind = users.ind
  WHERE utc_year(users.date_joined) BETWEEN 2015 AND 2020
  GROUP BY utc_year(users.date_joined)
)
ORDER BY join_year
