-- People who joined, by year
-- Years 2015 to 2020. The same person has rows under many keys and counts once.
SELECT utc_year(date_joined) AS join_year, CAST(count(*) AS BIGINT) AS number_users_joined
FROM (SELECT DISTINCT user_name, age, date_joined FROM users)
WHERE utc_year(date_joined) BETWEEN 2015 AND 2020
GROUP BY utc_year(date_joined)
ORDER BY join_year
