// The health check of the database's container: succeeds once the replica set takes writes, and makes the replica set
// when there is none yet. Any exception ends the shell with failure, which is what is wanted until all is there.

const admin = db.getSiblingDB("admin");
const hello = admin.hello();

// While the container prepares a new data folder, a database without replica set listens for a moment. It would say
// that it takes writes, hence the look at the name.
if (hello.setName === undefined) {
  admin.auth(process.env.MONGO_INITDB_ROOT_USERNAME, process.env.MONGO_INITDB_ROOT_PASSWORD);
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: "mongodb-system:27017" }] });
}

quit(hello.setName !== undefined && hello.isWritablePrimary ? 0 : 1);
