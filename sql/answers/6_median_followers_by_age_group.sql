-- Median number of followers by age group
SELECT age_group, exact_median(counts) AS median_follower_count
FROM (
  SELECT age_group(users.age) AS age_group,
    array_agg(pin.follower_count) FILTER (WHERE pin.follower_count IS NOT NULL) AS counts
  FROM pin JOIN users ON pin.ind = users.ind
  WHERE users.age >= 18
  GROUP BY age_group(users.age)
)
ORDER BY age_group
