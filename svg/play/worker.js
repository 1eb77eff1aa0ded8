/* The model, beside the page, so that the page never waits for it. ONNX Runtime Web (`ort`) stands above this
   script. It answers {number, task, values} with {number, answer} or {number, error}; nothing is kept between
   tasks but the two graphs. */

const graphs = {};

onmessage = async ({ data: { number, task, values } }) => {
  try {
    const answer = await tasks[task](values);
    postMessage({ number, answer });
  } catch (error) {
    postMessage({ number, error: String(error) });
  }
};

const tasks = {
  async start({ wasm, glue, weights, observe, step }) {
    progress(0.15, "Unpacking the runtime");
    ort.env.wasm.numThreads = 1;  // several need a server that isolates the page
    ort.env.wasm.wasmBinary = (await unpack(wasm)).buffer;
    // the glue would look for the binary beside itself, but a blob is beside nothing
    const script = glue.replaceAll("import.meta.url", JSON.stringify("file:///ort.mjs"));
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([script], { type: "text/javascript" })) };
    progress(0.35, "Unpacking the model");
    const externalData = [{ path: "weights", data: await unpack(weights) }];
    progress(0.5, "Starting the runtime");
    graphs.observe = await ort.InferenceSession.create(await unpack(observe), { externalData });
    progress(0.75, "Starting the model");
    graphs.step = await ort.InferenceSession.create(await unpack(step), { externalData });
    progress(0.95, "Looking at the scene");
  },
  observe: inputs => compute("observe", inputs),
  step: inputs => compute("step", inputs),
};

function progress(share, words) {
  postMessage({ progress: share, words });
}

/* Return the outputs of a graph by name; inputs and outputs are {type, data, dims}. */
async function compute(name, inputs) {
  const graph = graphs[name];
  const given = {};
  for (const key of graph.inputNames) {
    const { type, data, dims } = inputs[key];
    given[key] = new ort.Tensor(type, data, dims);
  }
  const found = await graph.run(given);
  return Object.fromEntries(
    graph.outputNames.map(key => [key, { type: found[key].type, data: found[key].data, dims: found[key].dims }]));
}

/* Return the bytes of a compressed text in base64. */
async function unpack(text) {
  const letters = atob(text);
  const bytes = new Uint8Array(letters.length);
  for (let place = 0; place < letters.length; place++) bytes[place] = letters.charCodeAt(place);
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}
