-- The median number of followers by the year in which people joined, 2015 to 2020.
SELECT utc_year(users.date_joined) AS join_year, CAST(median(pin.follower_count) AS DOUBLE) AS median_follower_count
FROM pin JOIN users ON pin.ind = users.ind
WHERE utc_year(users.date_joined) BETWEEN 2015 AND 2020
GROUP BY utc_year(users.date_joined)
ORDER BY join_year
