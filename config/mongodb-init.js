// Run once by the database's container, when the data folder is new: the user that the service connects as.
// It may read and write its own database and nothing else.

db.getSiblingDB("task_repository").createUser({
  user: "task_service",
  pwd: process.env.TASK_SERVICE_PASSWORD,
  roles: [{ role: "readWrite", db: "task_repository" }],
});
