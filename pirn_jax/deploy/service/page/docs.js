// /openapi.json as a page: each path, what it takes, and how curl asks it.
const element = (tag, words, className = "") => {
  const made = document.createElement(tag);
  made.textContent = words;
  made.className = className;
  return made;
};

const known = await (await fetch("openapi.json")).json();
document.getElementById("about").textContent = `${known.info.title} ${known.info.version}. ${known.info.description}`;

const inner = (schema = {}) => schema.anyOf?.find((one) => one.type !== "null") ?? schema;
const typeOf = (schema) => inner(schema).enum?.join(" | ") ?? inner(schema).type ?? "";

function article(path, verb, about) {
  const made = element("article", ""), title = element("h2", "");
  title.append(element("span", verb.toUpperCase(), "verb"), element("code", path));
  made.append(title, ...(about.description ?? about.summary ?? "").split("\n\n").map((words) => element("p", words)));
  const form = about.requestBody?.content?.["multipart/form-data"]?.schema?.properties ?? {};
  const fields = [
    ...(about.parameters ?? []).map((one) => [one.name, `${one.in}, ${typeOf(one.schema)}`]),
    ...Object.entries(form).map(([name, one]) => [name, one.format === "binary" ? "file" : `form, ${one.description ?? one.type}`]),
  ];
  const list = element("dl", "");
  list.id = "pairs";
  list.append(...fields.flatMap(([name, words]) => [element("dt", name), element("dd", words)]));
  if (fields.length) made.append(list);
  const files = form.rgb ? " -F rgb=@part.png -F xyz=@part.tiff" : "";
  const body = verb === "put" ? ` -X PUT -H 'Content-Type: application/json' -d '{"mark": "false_alarm"}'` : "";
  made.append(element("pre", `curl${files}${body} ${location.origin}${path}`));
  return made;
}

for (const [path, verbs] of Object.entries(known.paths)) {
  for (const [verb, about] of Object.entries(verbs)) document.getElementById("paths").append(article(path, verb, about));
}
