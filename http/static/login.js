// Sends the token to the server, which answers with a cookie that no script can read.
const form = document.getElementById("login");
const token = document.getElementById("token");
const wrong = document.getElementById("wrong");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  wrong.textContent = "";
  const answer = await fetch("/login", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ token: token.value }),
  }).catch(() => undefined);
  if (answer?.ok) location.assign("/");
  else {
    wrong.textContent = answer?.status === 401 ? "This token is wrong." : "Cannot reach the server; try again.";
    token.select();
  }
});
token.focus();
