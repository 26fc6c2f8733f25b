// What is asked, in the address, so that it can be shared; one that is too long is kept in the browser's history alone.

const LONGEST = 8000; // characters; the service and what addresses are sent through take no longer ones

export function writeAddress(parameters) {
  const whole = parameters.toString(), fits = whole.length <= LONGEST;
  history.pushState(whole, "", fits ? `?${whole}` : `?index=${encodeURIComponent(parameters.get("index"))}`);
  return fits;
}

export const readAddress = () => new URLSearchParams(typeof history.state === "string" ? history.state : location.search);
