// A task's life through the types that openapi-typescript makes of the service's OpenAPI document, and openapi-fetch.
//
// Called by `cargo xtask openapi`, compiled: typescript_client.js URL KEY. `schema.d.ts` is made beside it.

import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, paths } from "./schema.js";

type Task = components["schemas"]["Task"];

const [url, key] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

/** The answer's body, or an error with the problem. */
function ok<T>(answer: { data?: T; error?: unknown }): T {
  if (answer.data === undefined) throw new Error(`refused: ${JSON.stringify(answer.error)}`);
  return answer.data;
}

function check(holds: boolean, what: unknown): void {
  if (!holds) throw new Error(`unexpected: ${JSON.stringify(what)}`);
}

const taskType = `typescript-${randomUUID()}`;
const newTask = { task_type: taskType, request: { numbers: [1, 2] }, priority: 70 };
const idempotent = { header: { "Idempotency-Key": randomUUID() } };
const created: Task = ok(await client.POST("/api/v1/tasks", { params: idempotent, body: newTask }));
check(created.status === "pending" && created.priority === 70, created);

const claim = { task_types: [taskType], worker_id: "typescript" };
const claimed = ok(await client.POST("/api/v1/tasks/claim", { body: { ...claim, claim_id: randomUUID() } }));
const [task] = claimed.tasks;
check(task.id === created.id, claimed);
const lease_token = task.lease?.token ?? "";
const params = { path: { task_id: task.id } };

ok(await client.POST("/api/v1/tasks/{task_id}/heartbeat", { params, body: { lease_token } }));
const body = { lease_token, result: { sum: 3 } };
const receipt = ok(await client.POST("/api/v1/tasks/{task_id}/complete", { params, body }));
check(receipt.status === "completed", receipt);

const done = ok(await client.GET("/api/v1/tasks/{task_id}", { params }));
check(JSON.stringify(done.result) === '{"sum":3}', done);
const query = { status: ["completed"], task_type: [taskType] };
const page = ok(await client.GET("/api/v1/tasks", { params: { query } }));
check(page.tasks.length === 1 && page.tasks[0].id === task.id, page);

// Several at once, with the next work in the same call; and what is refused is a problem with its code.
ok(await client.POST("/api/v1/tasks", { body: newTask }));
const outcomes = [{ id: task.id, lease_token: "0".repeat(32), outcome: "completed" as const }];
const settled = ok(await client.POST("/api/v1/tasks/outcomes", { body: { outcomes, claim } }));
check(settled.results[0].problem?.code === "lease_lost" && settled.tasks.length === 1, settled);
const missing = { path: { task_id: randomUUID() } };
const refused = await client.GET("/api/v1/tasks/{task_id}", { params: missing });
check(refused.error?.code === "task_not_found", refused);

console.log(`the TypeScript client has completed ${task.id}`);
