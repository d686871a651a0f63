"""How a served model stands load: requests in a closed or an open loop, and what their times say."""
